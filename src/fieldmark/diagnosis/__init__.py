"""What is wrong with a run or a study, as findings: numbers, cause, advice, and what refutes it."""
