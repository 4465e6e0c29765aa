"""The Open Inference Protocol, version 2, over gRPC: messages, service and stub.

`inference_pb2` and `inference_pb2_grpc` are what `make protos` makes of `inference.proto`.
"""
