"""Launches a run on a cluster: Kubernetes, or Vertex AI through XManager."""
