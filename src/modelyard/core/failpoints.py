"""Named places where a test may end this process the hard way.

`MODELYARD_FAILPOINT=runner.after_intent:3` kills the process (SIGKILL, so that nothing cleans up)
the third time it passes that place. Without the variable a failpoint is one dictionary lookup.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "MODELYARD_FAILPOINT"

#: The failpoints of merging checkpoints.
MERGE_NAMES = (
    "merge.after_folder",
    "merge.after_write",
    "merge.after_tensor",
    "merge.before_index",
    "merge.before_rename",
    "merge.after_rename",
)

#: The failpoints of an evaluation.
EVALUATE_NAMES = (
    "evaluate.after_asked",
    "evaluate.after_reply",
    "evaluate.after_stored",
    "evaluate.before_results",
    "evaluate.before_record",
)

#: The failpoints of a certification; an evaluation's first three are passed too.
CERTIFY_NAMES = (
    "certify.after_opened",
    "certify.after_block",
    "certify.before_files",
    "certify.before_report",
    "certify.before_issued",
)

#: The failpoints of a tuner; a run's are passed too.
TUNE_NAMES = (
    "tuner.after_ask",
    "tuner.after_stopping",
    "tuner.before_tell",
    "tuner.after_tell",
)

#: The failpoints of registering, approving and moving an alias.
REGISTRY_NAMES = (
    "registry.after_evidence",
    "registry.after_registered",
    "registry.before_version_commit",
    "registry.after_approved",
    "registry.after_intent",
    "registry.before_commit",
    "registry.after_commit",
    "registry.after_moved",
)

#: The failpoints of a governed run; those of its training's run and of its certificate are passed too.
GOVERNED_NAMES = (
    "governed.after_requested",
    "governed.after_routed",
    "governed.after_planned",
    "governed.after_submit_intent",
    "governed.after_intent",
    "governed.after_submitted",
    "governed.after_running",
    "governed.after_training",
    "governed.after_artifacts_ready",
    "governed.after_paired_eval",
    "governed.before_proof",
    "governed.after_proof",
    "governed.after_pass",
)

#: The failpoints of training heads.
HEADS_NAMES = (
    "heads.after_conversations",
    "heads.after_batch_recorded",
    "heads.after_states",
    "heads.before_states_record",
    "heads.after_step_saved",
    "heads.before_written",
    "heads.after_written",
    "heads.after_joint_step_saved",
    "heads.before_joint_written",
)

#: The failpoints of a gateway's accounts.
GATEWAY_NAMES = (
    "gateway.before_let_go",
    "gateway.before_folded",
    "gateway.after_folded",
    "gateway.after_held",
    "gateway.after_settled",
    "gateway.before_log_renamed",
    "gateway.after_logged",
    "gateway.after_unlinked",
)

#: The failpoints of a watch's round (`up --watch`); those of its run are passed too.
WATCH_NAMES = (
    "watch.after_asked",
    "watch.after_aside",
    "watch.before_restored",
    "watch.after_restored",
    "watch.before_ended",
    "watch.after_ended",
)

#: The failpoints of a stream of forecasts.
FORECAST_NAMES = ("forecast.after_answer", "forecast.after_state")

#: The failpoints of submitting to Slurm; a run's are passed too.
SLURM_NAMES = (
    "slurm.after_announced",
    "slurm.after_array_announced",
    "slurm.after_sbatch",
    "slurm.after_submitted",
)

#: The failpoints that a run passes, so that its kill campaign can visit them all.
NAMES = (
    "journal.before_write",
    "journal.before_sync",
    "journal.after_sync",
    "runner.after_intent",
    "runner.after_submit",
    "runner.before_finished",
    "runner.after_finished",
    "local.after_directory",
    "local.after_spawn",
    "manifest.before_write",
    "wrapper.before_claim",
    "wrapper.after_claim",
    "wrapper.after_spawn",
    "wrapper.before_exit_record",
    "artifacts.before_rename",
)

_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Die here if the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
