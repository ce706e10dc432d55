"""``python -m tasks.joint fit --config tasks/joint/configs/...``: the command line of the joint trunk."""

from __future__ import annotations

import tasks.joint.data  # noqa: F401  # so that --data knows the data module by its short name
from mmattn.training.cli import main
from tasks.joint.module import JointClassification

if __name__ == "__main__":
    main(JointClassification, "tasks.joint")
