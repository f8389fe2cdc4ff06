"""Encoders that are asked and not looked into: fixed classes, ONNX folders, servers, their answers and their budget."""
