"""Quantizers on a GPU: one kernel each way; imported where there is a GPU and Triton."""
