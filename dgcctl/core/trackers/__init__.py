"""Runs for other programs' eyes: TensorBoard, MLflow, Weights & Biases. Each is written by its own
library, which is an extra, into a folder and never over a network.
"""
