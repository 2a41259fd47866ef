"""One page for a study, a run or a folder of them: what to show, and how it is put into HTML."""
