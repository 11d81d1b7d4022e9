"""A user's chain as plain calls: `chain.compile_chain`."""
