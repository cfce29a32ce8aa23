"""The workspaces of the workflow tests, on a cluster."""

from tests.workflow.conftest import documents, fresh

__all__ = ["documents", "fresh"]
