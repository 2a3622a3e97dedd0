"""One governed run, driven: every move on record before what it announces, so that any death can be taken up.

A submission is announced (`submit_intent`) before the runner sees the step, and the runner announces the job
before it submits that; after a crash both are found in the journal and the job by its key, so that nothing is
submitted twice and nothing billed is lost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.clock import stamp
from modelyard.core.digests import digest_json, digest_path
from modelyard.core.errors import GovernanceError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json
from modelyard.jobs.job import JobState
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.lifecycle.governed.around import Around, Proof
from modelyard.lifecycle.governed.declaration import Governance
from modelyard.lifecycle.governed.driving import driving
from modelyard.lifecycle.governed.pinned import (
    OPEN,
    refuse_changed,
    refuse_other_gate,
    refuse_other_pack,
    refuse_replanned,
)
from modelyard.lifecycle.governed.providers import Route
from modelyard.lifecycle.governed.records import (
    DRY_RUN,
    NOT_TRAINED,
    PENDING,
    gate_outcome,
    manifest_record,
    paired_scoring,
)
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest, training_run
from modelyard.lifecycle.governed.run_record import RunRecord
from modelyard.lifecycle.governed.start_policy import Rejected, StartFacts, TrainingStart, training_start
from modelyard.lifecycle.governed.training_step import STEP, Training, training_plan
from modelyard.lifecycle.governed.weights import kept_weights
from modelyard.runs.directory import Lease, create_run
from modelyard.runs.execution import ExecutionOptions, execute, open_backend
from modelyard.runs.keeper import ArtifactKeeper
from modelyard.runs.states import START
from modelyard.runs.yard import Yard

#: States in which what is about to be submitted is written down anew: the code may have been mended.
_MANIFEST_DUE = frozenset({"routed", "planned", "failed", "submit_failed"})


class GovernedRun:
    """One invocation over one run; `carry_out` may be called again after any death."""

    def __init__(
        self, yard: Yard, governance: Governance, request: TrainingRequest, places: RunPlaces, around: Around
    ) -> None:
        self._yard, self._governance, self._request = yard, governance, request
        self._places, self._around = places, around
        self._record = RunRecord(yard.journal, request, places, around)

    def carry_out(self) -> dict[str, Any]:
        """Drive the run as far as it goes by itself, and tell where it stands.

        Raises:
            RunBusy: Another process drives it.
            GovernanceError: It is a run of something else, has ended, or its start policy finds nothing.
            DocumentError: The provider's command cannot be rendered.
        """
        self._request.check()
        self._places.run_dir.mkdir(parents=True, exist_ok=True)
        with driving(self._yard, self._request.run_id, self._places.run_dir) as lease:
            self._record.refresh()
            self._refuse_other()
            if not self._record.now.state:
                self._record.move(START, evidence=[self._request.digest])
            route = self._routed()
            if route.why:
                return self._record.result(None)
            training, plan = self._planned(route)
            if not self._request.live:
                return self._planned_only(training, plan)
            if not self._record.now.has_been("artifacts_ready"):
                self._train(training, plan, lease)
            if self._record.now.state not in ("artifacts_ready", "paired_eval", "inconclusive"):
                return self._not_trained(training)
            return self._evaluated(training, lease)

    # -- before anything is submitted ------------------------------------------------------------------

    def _refuse_other(self) -> None:
        """That the folder holds this request, and that the run may still go on."""
        run = self._request.run_id
        if self._record.now.state in ("hold", "rolled_back", "route_rejected"):
            raise GovernanceError(f"{run}: has ended ({self._record.now.state}); begin a run of another id")
        iteration = max(1, self._record.now.iteration)
        path = self._places.iteration(iteration) / "request.json"
        asked = self._record.clean(self._request.record())
        if not path.exists():
            if self._record.now.state:
                raise GovernanceError(
                    f"{run}: {self._places.run_dir} is not its folder; give the one that it was begun in "
                    "with --run-dir, or begin a run of another id"
                )
            write_json(path, asked)
            return
        before = read_json(path)
        if iteration > 1:  # what a repair changed is the run's, whoever takes it up
            changed = {"training_delta": before["training_delta"], "repair_reason": before["repair_reason"]}
            self._request, asked = replace(self._request, **changed), {**asked, **changed}
        differing = [key for key in asked if key != "live" and before.get(key) != asked[key]]
        if differing:
            key = differing[0]
            raise GovernanceError(
                f"{run}: was begun with {key} {before.get(key)!r}, not {asked[key]!r}; "
                "give the same, or begin a run of another id"
            )

    def _routed(self) -> Route:
        request = self._request
        route = self._governance.providers.route(request.train_provider, request.infer_provider)
        if request.candidate not in self._governance.candidates:
            known = ", ".join(sorted(self._governance.candidates))
            route = Route(train=None, infer=None, why=f"{request.candidate} is no candidate: {known}")
        if self._record.now.state == "requested":
            target = "route_rejected" if route.why else "routed"
            self._record.move(target, reason=route.why)
        elif route.why:
            raise GovernanceError(
                f"{request.run_id}: its route is no longer right: {route.why}; mend the files"
            )
        return route

    def _planned(self, route: Route) -> tuple[Training, Plan]:
        training = self._training(route)
        plan = training_plan(training)
        if route.infer is None:
            raise AssertionError("a checked route has both providers")
        place = self._places.iteration(training.iteration) / "manifest.json"
        state, run = self._record.now.state, self._request.run_id
        if state in OPEN:
            refuse_other_gate(run, self._governance, self._places)
        due = state in _MANIFEST_DUE or (state == "plan_only" and self._request.live)
        if due or not place.exists():
            if state in ("planned", "failed", "submit_failed") and place.exists():
                refuse_changed(training)
            record = manifest_record(training, plan.steps[0], route.infer, live=self._request.live)
            if place.exists():
                refuse_replanned(run, state, read_json(place)["digests"], record["digests"])
            manifest = self._record.clean({**record, "created_at": stamp(self._around.clock())})
            write_json(place, manifest)
            write_json(self._places.manifest, manifest)
        if self._record.now.state == "routed":
            self._record.move("planned", evidence=[digest_path(place)])
        return training, plan

    def _training(self, route: Route) -> Training:
        request, iteration = self._request, self._record.now.iteration
        candidate = self._governance.candidates[request.candidate]
        if route.train is None:
            raise AssertionError("a checked route has both providers")
        losses = self._places.iteration(iteration) / "losses.jsonl"
        if not losses.exists():
            losses.parent.mkdir(parents=True, exist_ok=True)
            losses.write_text("")
        return Training(
            governance=self._governance, request=request, candidate=candidate, provider=route.train,
            start=self._start(iteration), places=self._places, iteration=iteration, losses=losses,
        )  # fmt: skip

    def _start(self, iteration: int) -> TrainingStart:
        """Chosen once an iteration: what is promoted meanwhile changes nothing."""
        place = self._places.iteration(iteration) / "training_start.json"
        if place.exists():
            record = read_json(place)
            rejected = tuple(Rejected(**each) for each in record["rejected"])
            return TrainingStart(**{**record, "rejected": rejected})
        candidate = self._governance.candidates[self._request.candidate]
        known = self._governance.candidates.values()
        chosen = training_start(
            StartFacts(
                request=self._request,
                candidate=candidate,
                lineage=tuple(each.name for each in known if each.lineage == candidate.lineage),
                folder=self._governance.folder,
                iteration=iteration,
                journal=self._yard.journal,
                store=ArtifactStore(self._yard.artifacts_dir),
                releases=self._around.releases,
            )
        )
        write_json(place, chosen.record())
        return chosen

    def _planned_only(self, training: Training, plan: Plan) -> dict[str, Any]:
        if self._record.now.state == "planned":
            self._record.move("plan_only")
        backend = open_backend(self._execution(), self._places.training(training.iteration) / "jobs")
        request = backend.render(plan.steps[0])
        self._record.handle(
            {"status": "planned", "backend": plan.steps[0].backend, "request": dict(request.body)}
        )
        outcome = gate_outcome("pending_remote_paired_eval", "hold", ["a dry run proves nothing"])
        return self._record.result(self._record.evidence(training, outcome, DRY_RUN))

    # -- training --------------------------------------------------------------------------------------

    def _train(self, training: Training, plan: Plan, lease: Lease) -> None:
        run, step = training_run(self._request.run_id, training.iteration), plan.steps[0]
        if self._record.now.state not in ("submit_intent", "submitted", "running"):
            refuse_changed(training)
            manifest = self._places.iteration(training.iteration) / "manifest.json"
            self._record.move("submit_intent", evidence=[digest_path(manifest)])
        failpoint("governed.after_intent")
        self._record.handle({"status": "submitted", "backend": step.backend, "run": run})
        directory = create_run(
            self._yard, self._places.training(training.iteration), run=run, kind="governed",
            source=str(self._governance.document.path.absolute()), plan=plan,
        )  # fmt: skip

        def seen(item: StepProgress) -> None:
            lease.renew()
            self._follow(item)

        options = replace(
            self._execution(),
            backend=step.backend,
            observers=(seen, ArtifactKeeper(self._yard, run), *self._around.observers),
            settled=lambda: self._beat(lease, training.iteration),
        )
        _, progress = execute(self._yard, directory, plan, options)
        failpoint("governed.after_training")
        self._settle(progress[STEP], training)

    def _execution(self) -> ExecutionOptions:
        return ExecutionOptions(environment=self._around.environment, slots=self._around.slots)

    def _follow(self, item: StepProgress) -> None:
        """Move with the job: submitted once the backend has it, running once it runs."""
        job = item.last
        if job is None or not job.native_id:
            return
        if self._record.now.state == "submit_intent":
            self._record.move("submitted", evidence=[digest_json(job.key)])
        if self._record.now.state == "submitted" and job.state is not JobState.PENDING:
            self._record.move("running")

    def _settle(self, item: StepProgress, training: Training) -> None:
        """The end of the training as a state; one that was stopped stays where it is."""
        job = item.last
        told = {"job": job.key, "exit_code": job.report.exit_code, "reason": job.report.reason} if job else {}
        if item.status is StepStatus.CANCELLED or (job is not None and job.state is JobState.CANCELLED):
            return
        detail = self._record.clean(item.note or (job.report.detail if job else ""))
        if item.status is StepStatus.SUCCEEDED:
            for target in ("submitted", "running"):
                if not self._record.now.has_been(target):
                    self._record.move(target)
            weights = self._weights(training)
            self._record.handle({"status": "succeeded", "weights": weights, **told})
            self._record.move("artifacts_ready", evidence=[weights])
            return
        refused = job is None or job.report.reason == "start"
        lost = job is not None and job.state is JobState.LOST
        if refused and self._record.now.state == "submit_intent":
            self._record.handle({"status": "submit_failed", "detail": detail, **told})
            self._record.move("submit_failed", reason=detail)
            return
        if self._record.now.state == "submit_intent":
            self._record.move("submitted")
        self._record.handle({"status": "lost" if lost else "failed", "detail": detail, **told})
        self._record.move("lost" if lost else "failed", reason=detail)

    def _weights(self, training: Training) -> str:
        return kept_weights(self._yard.journal.read(), self._request.run_id, training.iteration)[-1]

    def _not_trained(self, training: Training) -> dict[str, Any]:
        state = self._record.now.state
        if state in ("submit_failed", "failed", "lost"):
            why = self._record.now.moves[-1].reason or state
            outcome = gate_outcome(
                "fail", "repair" if state == "failed" else "hold", [f"the training {state}: {why}"]
            )
            return self._record.result(self._record.evidence(training, outcome, NOT_TRAINED))
        return self._record.result(None)

    # -- evaluation ------------------------------------------------------------------------------------

    def _evaluated(self, training: Training, lease: Lease) -> dict[str, Any]:
        # not before the state is on record: a provider that cannot be read costs no second training
        weights = self._weights(training)
        self._around.prover.register(training, weights)
        if self._governance.gate.pack is None:
            waiting = gate_outcome("pending_remote_paired_eval", "await_paired_eval", ["no pack is declared"])
            return self._record.result(self._record.evidence(training, waiting, PENDING))
        run = self._request.run_id
        refuse_other_pack(run, self._governance, self._places, training.iteration)
        if self._record.now.state != "paired_eval":
            self._record.move("paired_eval")
        failpoint("governed.before_proof")

        def told(share: float) -> None:
            lease.renew()
            self._record.reached(share)

        proof = self._around.prover.prove(training, weights, told)
        if proof is None:
            waiting = gate_outcome(
                "pending_remote_paired_eval", "await_paired_eval", ["it was not asked to the end"]
            )
            return self._record.result(self._record.evidence(training, waiting, PENDING))
        failpoint("governed.after_proof")
        outcome = _judged(proof, repairable=self._record.now.iteration < self._governance.budget.iterations)
        evidence = self._record.evidence(training, outcome, paired_scoring(proof.verdict))
        self._record.move(proof.verdict, reason="; ".join(proof.reasons), evidence=[proof.report_digest])
        return self._record.result(evidence)

    def _beat(self, lease: Lease, iteration: int) -> None:
        lease.renew()
        if self._record.now.state == "running":
            self._record.reached(reported_share(self._places.iteration(iteration) / "progress.json"))


def reported_share(path: Path) -> float | None:
    """How far a training says that it is: `{"step": 30, "total": 100}` in its iteration's progress.json."""
    try:
        record = read_json(path)
        share = float(record["step"]) / float(record["total"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
    return min(1.0, max(0.0, share))


def _judged(proof: Proof, *, repairable: bool) -> dict[str, Any]:
    wanted = {"pass": "promote_to_stage", "fail": "repair" if repairable else "hold", "inconclusive": "hold"}
    return {
        "scores": dict(proof.scores), "improvement": proof.delta, "gate_result": proof.verdict,
        "promotion_recommendation": wanted[proof.verdict], "rationale": list(proof.reasons),
        "report": {"path": str(proof.report), "digest": proof.report_digest},
    }  # fmt: skip
