"""Photos: where they are, who trains on them, and how they become batches."""
