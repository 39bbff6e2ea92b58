"""The training loop: short, explicit, resumable at any step.

One step: the batch plan names the samples, the frame plan names their frames, the reader fetches them,
packing lays them out; then forward and backward over the micro-batches, clip, AdamW step. The loss of a step
is the sum of token losses over *all* its answer tokens (on every rank) divided by their number. A kill at any
moment costs the steps since the last checkpoint, and those are repeated exactly: batch, frame indices and
loss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from workbench.errors import Interrupted, MediaError
from workbench.frames import FramePlan
from workbench.models.videolm import Prepared
from workbench.recipe.schema import MachineSection, StageSection
from workbench.runs import Run
from workbench.samples.reader import FrameReader
from workbench.samples.reader.planned import clip_of
from workbench.samples.sample import Sample
from workbench.training.align import Alignment, caption_words
from workbench.training.batches import BatchPlan, fingerprint
from workbench.training.checkpoint import Position, Totals, load_position, load_trainer, save_trainer
from workbench.training.optim import make_optimizer, schedule_factor, set_rates
from workbench.training.packing import PackedBatch, materialise, pack
from workbench.training.ranks import Ranks, Share, SilentRun, skipped_places
from workbench.training.stopping import StopRequest

DATA_WAIT_S = 0.2  # between two looks at the drop box while a step waits for its data
Sources = Mapping[str, Sequence[Sample]]


class Stopping(Exception):
    """Raised by ``Trainer.check_stop`` out of an evaluation, caught by the trainer."""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """This rank's part of a step, ready to pack. ``skipped``: (place in the step's batch, sample id,
    error).
    """

    prepared: list[Prepared]
    skipped: list[tuple[int, str, str]]


class Trainer:
    """Trains ``stages`` one after the other into ``run``.

    Args:
        run: where everything is written; a checkpoint found there is resumed. Ranks other than 0 get a
        ``SilentRun``. model, processor: the model in memory (float32 weights) and what prepares its inputs.
        sources: source name -> samples. Plans come from ``plan_for(stage, samples)``, once a stage.
        on_point: called with the run's step at every step in ``points`` (evaluation), model in eval mode.
        command: how to start this run again, for the message after an interrupt.

    Raises:
        Interrupted: Ctrl-C, TERM or a stop request; the step was finished and a checkpoint written.
        WorkbenchError: bad stages, damaged checkpoints, a full disk.
    """

    def __init__(
        self,
        run: Run | SilentRun,
        stages: Sequence[StageSection],
        model: Any,
        processor: Any,
        sources: Sources,
        reader: FrameReader,
        plan_for: Callable[[StageSection, list[Sample]], FramePlan],
        *,
        seed: int,
        machine: MachineSection | None = None,
        points: frozenset[int] = frozenset(),
        on_point: Callable[[int], None] | None = None,
        progress: Callable[[int, int, dict], None] | None = None,
        command: str = "the same command",
    ) -> None:
        self.run, self.stages, self.model, self.processor = run, list(stages), model, processor
        self.sources, self.reader, self.plan_for, self.seed = sources, reader, plan_for, seed
        self.machine = machine or MachineSection()
        self.points, self.on_point, self.progress, self.command = points, on_point, progress, command
        mixed = "bf16" if self.machine.precision == "bf16" else "no"
        AcceleratorState._reset_state()  # another recipe of this process may have had another precision
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        self.ranks = Ranks(self.accelerator)
        if self.machine.attention != "sdpa":
            model.set_attn_implementation(self.machine.attention)
        if self.machine.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.batch_plans = [self._batch_plan(stage) for stage in self.stages]
        self.total_steps = sum(plan.steps for plan in self.batch_plans)
        self.position, self.totals = Position(), Totals()
        self.stopping = False
        self._stop: StopRequest | None = None
        self._wishes: set[str] = set()  # taken from the drop box, not yet answered

    # -- the stages
    # -------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run every stage that is not finished yet."""
        resume_from = self.ranks.gather(self.run.latest_checkpoint())[0]
        if resume_from is not None:
            self.position, self.totals = load_position(resume_from)
            self.run.drop_after(self.position.step)
            self.run.event("resume", checkpoint=resume_from.name, **dataclasses.asdict(self.position))
        elif isinstance(self.run, Run) and len(self.run.metrics()):  # killed before the first checkpoint
            self.run.drop_after(0)
        with StopRequest() as self._stop:
            if resume_from is not None:
                if self._owes_evaluation():
                    self._evaluate(self.position.step)
                self.stopping = any(self.ranks.gather(self.wants_stop()))
                self._leave_if_stopping()
            for index in range(self.position.stage, len(self.stages)):
                self._stage(index, resume_from if index == self.position.stage else None)
                resume_from = None

    def wants_stop(self) -> bool:
        """Whether this process has been asked to stop; takes what lies in the run's drop box."""
        self._wishes |= self.run.requests()
        return "stop" in self._wishes or (self._stop is not None and self._stop.asked)

    def check_stop(self) -> None:
        """For long work at a point (evaluation): raise ``Stopping`` when a stop was asked for. The step counts as
        done, and the evaluation is made up for when the run goes on.
        """
        if self.wants_stop():
            raise Stopping

    def _owes_evaluation(self) -> bool:
        """The last session was stopped at a point before its evaluation was through."""
        step = self.position.step
        if step not in self.points or not isinstance(self.run, Run):
            return False
        return not any(e["kind"] == "evaluated" and e["step"] == step for e in self.run.events())

    def _evaluate(self, step: int) -> None:
        if self.on_point is None or not self.ranks.main:
            return
        self.model.eval()
        with contextlib.suppress(Stopping):
            self.on_point(step)
        self.model.train()

    def _batch_plan(self, stage: StageSection) -> BatchPlan:
        return BatchPlan(
            self.sources,
            stage.data,
            stage.batch,
            seed=self.seed,
            stage=stage.name,
            steps=stage.steps,
            epochs=stage.epochs,
            turns=stage.turns,
        )

    def _stage(self, index: int, resume_from: Path | None) -> None:
        stage, batches = self.stages[index], self.batch_plans[index]
        if "fusion" in stage.train:
            self.model.activate_fusion()
        plan = self.plan_for(stage, batches.samples())
        self.run.event("frames", stage=stage.name, **_frames_used(plan, batches.samples()))
        # keyed by stage, so that a resumed stage draws the same initial head as a straight run
        torch.manual_seed(self.seed * 1000 + index)
        module = self._objective(stage, batches)
        head = module.head if isinstance(module, Alignment) else None
        optimizer = make_optimizer(self.model, self.model.module_groups(), stage, head)
        module.to(self.accelerator.device)
        if resume_from is not None and self.position.stage_step > 0:
            load_trainer(resume_from, optimizer, module)
        else:
            self.totals = Totals()
        wrapped, optimizer = self.accelerator.prepare(module, optimizer)
        start = self.position.stage_step
        self.run.event("stage_start", stage=stage.name, steps=batches.steps, at=start)
        self.model.train()
        try:
            for k, fetched in self._stream(batches, plan, start):
                began = time.perf_counter()
                row, share = self._step(stage, k, batches.steps, wrapped, optimizer, fetched)
                self.position = Position(index, k + 1, self.position.step + 1)
                self._record(stage, row, self.ranks.gather(share), time.perf_counter() - began, batches, plan)
                if self._after_step(stage, batches.steps, k, optimizer, module):
                    break
            else:
                if self.position.stage_step < batches.steps:  # stopped while it waited for data
                    self._save(f"step-{self.position.step:06d}", optimizer, module)
        finally:
            self.accelerator.free_memory()
        if self.position.stage_step == batches.steps:
            padding = 1 - self.totals.real_tokens / max(1, self.totals.places)
            costs = dataclasses.asdict(self.totals)
            self.run.event("stage_end", stage=stage.name, steps=batches.steps, padding_share=padding, **costs)
            self.position = Position(index + 1, 0, self.position.step)
            self._save(f"stage-{stage.name}", optimizer, module)
        self._leave_if_stopping()

    def _leave_if_stopping(self) -> None:
        if self.stopping:
            self.run.finish("interrupted")
            raise Interrupted(
                "go on training",
                f"a stop was asked for; step {self.position.step} of {self.total_steps} is done and saved",
                f"Resume with: {self.command}",
            )

    def _objective(self, stage: StageSection, batches: BatchPlan) -> nn.Module:
        if stage.objective == "sft":
            return self.model
        captions = [
            self.processor.prepare(sample, None).labels
            for sample in (dataclasses.replace(s, media=None) for s in batches.samples())
        ]
        words, prior = caption_words(captions)
        return Alignment(self.model, self.model.encoder_width, words, prior)

    # -- one step
    # ---------------------------------------------------------------------------------------------

    def _stream(self, batches: BatchPlan, plan: FramePlan, start: int) -> Iterator[tuple[int, Fetched]]:
        """This rank's part of every step from ``start`` on; the next one is read while this one trains."""

        def fetch(step: int) -> Fetched:
            fetched = Fetched([], [])
            visits = list(enumerate(batches.step(step)))
            for place, visit in visits[self.ranks.rank :: self.ranks.world]:
                if self.stopping:  # nobody waits for this step any more
                    break
                try:
                    clip = clip_of(visit.sample, plan.indices(visit.sample.id), self.reader)
                except MediaError as error:  # counted and left out; never replaced by a neighbour
                    fetched.skipped.append((place, visit.sample.id, str(error)))
                    continue
                fetched.prepared.append(self.processor.prepare(visit.sample, clip, turns=visit.turns))
            return fetched

        pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        try:
            ahead = pool.submit(fetch, start) if start < batches.steps else None
            for step in range(start, batches.steps):
                assert ahead is not None
                # data may take long (a dead network mount): a stop is not made to wait for it. Several ranks do
                # wait, as each of them must take part in a step that one of them has begun.
                while self.ranks.world == 1 and not wait([ahead], timeout=DATA_WAIT_S).done:
                    if self.wants_stop():
                        self.stopping = True
                        return
                current = ahead.result()
                ahead = pool.submit(fetch, step + 1) if step + 1 < batches.steps else None
                yield step, current
        finally:
            pool.shutdown(wait=not self.stopping, cancel_futures=True)

    def _micro_batches(self, stage: StageSection, prepared: list[Prepared]) -> list[PackedBatch]:
        pad_id = self.processor.pad_token_id
        if not prepared:
            return []
        if stage.objective == "align":
            return [materialise(prepared, [[i] for i in range(len(prepared))], pad_id)]
        return pack(prepared, stage.tokens_per_row, stage.rows_per_micro_batch, pad_id)

    def _step(
        self,
        stage: StageSection,
        k: int,
        steps: int,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        fetched: Fetched,
    ) -> tuple[dict[str, Any], Share]:
        micro = self._micro_batches(stage, fetched.prepared)
        visual, real = sum(b.visual_tokens for b in micro), sum(b.real_tokens for b in micro)
        share = Share(fetched.skipped, visual, real, sum(b.places for b in micro))
        counts = [sum(batch.answer_tokens for batch in micro), len(fetched.prepared)]
        answers, captions = self.ranks.total(torch.tensor(counts)).tolist()
        items = captions if stage.objective == "align" else answers
        dummy = materialise([self.processor.dummy()], [[0]], self.processor.pad_token_id)
        micro = self.ranks.equalise(micro, dummy, join=stage.objective == "sft")
        device, world = self.accelerator.device, self.ranks.world
        rates = set_rates(optimizer, schedule_factor(k, steps, stage.optimizer))
        loss_sum = torch.zeros((), device=device)
        for i, batch in enumerate(micro):
            last = i == len(micro) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(wrapped):
                out = wrapped(**batch.model_inputs(device), num_items=max(items, 1))
                loss = out if stage.objective == "align" else out.loss
                # DDP averages gradients over ranks, the step's loss is a sum: hence the factor
                self.accelerator.backward(loss * world)
            loss_sum += loss.detach()
        norm = torch.zeros(())
        if items:
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            for parameter in trained:
                if parameter.grad is None:  # a step without media: moments fade alike on any number of ranks
                    parameter.grad = torch.zeros_like(parameter)
            norm = self.accelerator.clip_grad_norm_(trained, stage.optimizer.clip)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = (
            float(self.ranks.total(loss_sum)) if items else math.nan
        )  # nothing could be read: no loss, not 0
        return {"loss": loss, "grad_norm": float(norm), "answer_tokens": answers} | rates, share

    # -- after a step
    # -----------------------------------------------------------------------------------------

    def _record(
        self,
        stage: StageSection,
        row: dict[str, Any],
        shares: list[Share],
        seconds: float,
        batches: BatchPlan,
        plan: FramePlan,
    ) -> None:
        """Write what a step did: on rank 0, for all ranks."""
        skipped = list(skipped_places(shares))
        visual, real, places = (
            sum(getattr(share, name) for share in shares)
            for name in ("visual_tokens", "real_tokens", "places")
        )
        totals = self.totals
        totals.seconds += seconds
        totals.visual_tokens += visual
        totals.answer_tokens += row["answer_tokens"]
        totals.real_tokens += real
        totals.places += places
        totals.skipped += len(skipped)
        if not self.ranks.main:
            return
        step = self.position.step
        for _, sample, error in skipped:
            self.run.event("skipped", stage=stage.name, step=step, sample=sample, error=error)
        if not math.isfinite(row["loss"]):
            self.run.event("not_finite", step=step, loss=str(row["loss"]))
        gone = {place for place, _, _ in skipped}
        seen = [v for i, v in enumerate(batches.step(self.position.stage_step - 1)) if i not in gone]
        batch = fingerprint(seen, [plan.indices(v.sample.id) for v in seen])
        row |= {"visual_tokens": visual, "tokens": real, "padding": places - real}
        self.run.metric(step=step, stage=stage.name, seconds=seconds, batch=batch, **row)
        self.run.beat(step, self.total_steps)
        if self.progress is not None:
            self.progress(step, self.total_steps, {"stage": stage.name, "loss": row["loss"]})

    def _after_step(self, stage: StageSection, steps: int, k: int, optimizer: Any, module: nn.Module) -> bool:
        """Evaluate and checkpoint where due; True when a stop was asked for, on any rank."""
        step = self.position.step
        if step in self.points:
            self._evaluate(step)
        wishes = self._wishes | ({"stop"} if self.wants_stop() else set())
        self._wishes = set()
        asked = frozenset().union(*self.ranks.gather(wishes))
        self.stopping = "stop" in asked
        due = stage.checkpoint_every is not None and (k + 1) % stage.checkpoint_every == 0
        if (due or asked) and k + 1 < steps:  # after the last step the stage's own checkpoint follows
            self._save(f"step-{step:06d}", optimizer, module)
        return self.stopping

    def _save(self, name: str, optimizer: Any, module: nn.Module) -> None:
        if isinstance(self.run, SilentRun):
            return
        with self.run.checkpoint_dir(name) as directory:
            self.model.save_pretrained(directory / "model")
            self.processor.save_pretrained(directory / "model")
            inner = getattr(optimizer, "optimizer", optimizer)
            save_trainer(directory, self.position, self.totals, inner, module)
        self.run.prune_checkpoints(keep=name, prefix="step-")


def _frames_used(plan: FramePlan, samples: list[Sample]) -> dict[str, Any]:
    """What the run's log says of a stage's frames."""
    histogram = {str(frames): count for frames, count in plan.histogram().items()}
    return {
        "mean": plan.mean_frames(),
        "histogram": histogram,
        "by_skill": plan.by_skill(samples),
        "failures": plan.failures(),
        "policy": plan.metadata.get("policy"),
    }
