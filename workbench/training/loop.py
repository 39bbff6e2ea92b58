"""The training loop: short, explicit, resumable at any step.

One step: the batch plan names the samples, the frame plan names their frames, the reader fetches them, packing lays them out;
then forward and backward over the micro-batches, clip, AdamW step. The loss of a step is the sum of token losses over *all* its answer
tokens (on every rank) divided by their number. A kill at any moment costs the steps since the last checkpoint, and
those are repeated exactly: batch, frame indices and loss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from workbench.errors import Interrupted, MediaError
from workbench.frames import FramePlan
from workbench.models.videolm import Prepared
from workbench.recipe.schema import MachineSection, StageSection
from workbench.runs import Run
from workbench.samples.reader import FrameReader
from workbench.samples.sample import Clip, Sample
from workbench.training.align import Alignment, caption_words
from workbench.training.batches import BatchPlan, Visit, fingerprint
from workbench.training.checkpoint import Position, load_position, load_trainer, save_trainer
from workbench.training.optim import make_optimizer, schedule_factor, set_rates
from workbench.training.packing import PackedBatch, materialise, pack
from workbench.training.stopping import StopRequest

Sources = Mapping[str, Sequence[Sample]]


@dataclasses.dataclass
class Totals:
    """What a stage has cost so far, over all ranks."""

    seconds: float = 0.0
    visual_tokens: int = 0
    answer_tokens: int = 0
    real_tokens: int = 0
    places: int = 0


class Trainer:
    """Trains ``stages`` one after the other into ``run``.

    Args:
        run: where everything is written; a checkpoint found there is resumed.
        model, processor: the model in memory (float32 weights) and what prepares its inputs.
        sources: source name -> samples. Plans come from ``plan_for(stage, samples)``, once a stage.
        on_point: called with the run's step at every step in ``points`` (evaluation), model in eval mode.
        command: how to start this run again, for the message after an interrupt.

    Raises:
        Interrupted: Ctrl-C, TERM or a stop request; the step was finished and a checkpoint written.
        WorkbenchError: bad stages, damaged checkpoints, a full disk.
    """

    def __init__(
        self,
        run: Run,
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
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        self.batch_plans = [self._batch_plan(stage) for stage in self.stages]
        self.total_steps = sum(plan.steps for plan in self.batch_plans)
        self.position = Position()

    # -- the stages -------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run every stage that is not finished yet."""
        resume_from = self.run.latest_checkpoint()
        if resume_from is not None:
            self.position = load_position(resume_from)
            self.run.drop_after(self.position.step)
            self.run.event("resume", checkpoint=resume_from.name, **dataclasses.asdict(self.position))
        with StopRequest() as stop:
            for index in range(self.position.stage, len(self.stages)):
                self._stage(index, resume_from if index == self.position.stage else None, stop)
                resume_from = None

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

    def _stage(self, index: int, resume_from: Path | None, stop: StopRequest) -> None:
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
        wrapped, optimizer = self.accelerator.prepare(module, optimizer)
        start = self.position.stage_step
        self.run.event("stage_start", stage=stage.name, steps=batches.steps, at=start)
        totals = Totals()
        self.model.train()
        try:
            for k, visits, prepared, indices in self._stream(batches, plan, start):
                began = time.perf_counter()
                row = self._step(stage, k, batches.steps, wrapped, optimizer, prepared, totals)
                seconds = time.perf_counter() - began
                totals.seconds += seconds
                self.position = Position(index, k + 1, self.position.step + 1)
                self._record(stage, row, seconds, fingerprint(visits, indices))
                self._after_step(stage, batches.steps, k, optimizer, module, stop)
        finally:
            self.accelerator.free_memory()
        self.position = Position(index + 1, 0, self.position.step)
        padding = 1 - totals.real_tokens / max(1, totals.places)
        self.run.event(
            "stage_end", stage=stage.name, steps=batches.steps, padding_share=padding, **dataclasses.asdict(totals)
        )
        self._save(f"stage-{stage.name}", optimizer, module)

    def _objective(self, stage: StageSection, batches: BatchPlan) -> nn.Module:
        if stage.objective == "sft":
            return self.model
        captions = [
            self.processor.prepare(sample, None).labels
            for sample in (dataclasses.replace(s, media=None) for s in batches.samples())
        ]
        words, prior = caption_words(captions)
        return Alignment(self.model, self.model.encoder_width, words, prior)

    # -- one step ---------------------------------------------------------------------------------------------

    def _stream(
        self, batches: BatchPlan, plan: FramePlan, start: int
    ) -> Iterator[tuple[int, list[Visit], list[Prepared], list[tuple[int, ...]]]]:
        """Batches from ``start`` on; the next one is read while this one trains."""

        def fetch(step: int) -> tuple[list[Visit], list[Prepared], list[tuple[int, ...]]]:
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            visits, prepared, used = [], [], []
            for visit in batches.step(step)[rank::world]:
                indices = plan.indices(visit.sample.id)
                try:
                    clip = self._clip(visit.sample, indices)
                except MediaError as error:  # counted and left out; never replaced by a neighbour
                    self.run.event("skipped", sample=visit.sample.id, step=step, error=str(error))
                    continue
                visits.append(visit)
                used.append(indices)
                prepared.append(self.processor.prepare(visit.sample, clip, turns=visit.turns))
            return visits, prepared, used

        with ThreadPoolExecutor(1, thread_name_prefix="batch") as pool:
            ahead = pool.submit(fetch, start) if start < batches.steps else None
            for step in range(start, batches.steps):
                assert ahead is not None
                current = ahead.result()
                ahead = pool.submit(fetch, step + 1) if step + 1 < batches.steps else None
                yield step, *current

    def _clip(self, sample: Sample, indices: tuple[int, ...]) -> Clip | None:
        if sample.media is None:
            return None
        if not indices:
            raise MediaError(
                f"read {sample.media.path.name}", "it could not be opened when frames were planned", "mend or remove it"
            )
        return self.reader.read(sample.media, indices)

    def _micro_batches(self, stage: StageSection, prepared: list[Prepared]) -> list[PackedBatch]:
        pad_id = self.processor.pad_token_id
        if stage.objective == "align":
            return [materialise(prepared, [[i] for i in range(len(prepared))], pad_id)] if prepared else []
        batches = pack(prepared, stage.tokens_per_row, stage.rows_per_micro_batch, pad_id) if prepared else []
        if self.accelerator.num_processes > 1:
            batches = self._equalise(batches, pad_id)
        return batches

    def _equalise(self, batches: list[PackedBatch], pad_id: int) -> list[PackedBatch]:
        """Same number of micro-batches on every rank, each one touching every module: a rank whose samples hold no
        video adds a black two-frame clip without labels (zero loss), decided after packing, so that the reduction of
        the fusion's gradients never waits for it."""
        count = torch.tensor([len(batches)], device=self.accelerator.device)
        most = int(self.accelerator.gather(count).max())
        dummy = materialise([self.processor.dummy()], [[0]], pad_id)
        batches = [b if b.grids is not None and bool((b.grids[:, 0] > 1).any()) else _join(b, dummy) for b in batches]
        return batches + [dummy] * (most - len(batches))

    def _step(
        self,
        stage: StageSection,
        k: int,
        steps: int,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        prepared: list[Prepared],
        totals: Totals,
    ) -> dict[str, Any]:
        micro = self._micro_batches(stage, prepared)
        device = self.accelerator.device
        world = self.accelerator.num_processes
        answers = sum(batch.answer_tokens for batch in micro)
        if world > 1:
            answers = int(self.accelerator.reduce(torch.tensor([answers], device=device), "sum"))
        rates = set_rates(optimizer, schedule_factor(k, steps, stage.optimizer))
        loss_sum = torch.zeros((), device=device)
        for i, batch in enumerate(micro):
            last = i == len(micro) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(wrapped):
                inputs = batch.model_inputs(device)
                if stage.objective == "align":
                    loss = wrapped(**inputs)
                else:  # DDP averages gradients over ranks, the step's loss is a sum: hence the factor
                    loss = wrapped(**inputs, num_items=max(answers, 1)).loss * world
                self.accelerator.backward(loss)
            loss_sum += loss.detach() / (len(micro) * 1.0 if stage.objective == "align" else world)
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = self.accelerator.clip_grad_norm_(trained, stage.optimizer.clip) if trained else torch.zeros(())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if world > 1 and stage.objective == "sft":
            loss_sum = self.accelerator.reduce(loss_sum, "sum")
        places = sum(batch.places for batch in micro)
        visual = sum(batch.visual_tokens for batch in micro)
        real = sum(batch.real_tokens for batch in micro)
        totals.visual_tokens += visual
        totals.answer_tokens += answers
        totals.real_tokens += real
        totals.places += places
        row: dict[str, Any] = {"loss": float(loss_sum), "grad_norm": float(norm), "answer_tokens": answers}
        return row | {"visual_tokens": visual, "tokens": real, "padding": places - real} | rates

    # -- after a step -----------------------------------------------------------------------------------------

    def _record(self, stage: StageSection, row: dict[str, Any], seconds: float, batch: str) -> None:
        if not self.accelerator.is_main_process:
            return
        if not np.isfinite(row["loss"]):
            self.run.event("not_finite", step=self.position.step, loss=str(row["loss"]))
        self.run.metric(step=self.position.step, stage=stage.name, seconds=seconds, batch=batch, **row)
        self.run.beat(self.position.step, self.total_steps)
        if self.progress is not None:
            self.progress(self.position.step, self.total_steps, {"stage": stage.name, "loss": row["loss"]})

    def _after_step(
        self, stage: StageSection, steps: int, k: int, optimizer: Any, module: nn.Module, stop: StopRequest
    ) -> None:
        step = self.position.step
        if step in self.points and self.on_point is not None:
            self.model.eval()
            self.on_point(step)
            self.model.train()
        asked = self.run.requests()
        due = stage.checkpoint_every is not None and (k + 1) % stage.checkpoint_every == 0
        stopping = stop.asked or "stop" in asked
        if (due or stopping or "checkpoint" in asked) and k + 1 < steps:
            self._save(f"step-{step:06d}", optimizer, module)
        if stopping:
            self.run.finish("interrupted")
            raise Interrupted(
                "go on training",
                f"a stop was asked for; step {step} of {self.total_steps} is finished and saved",
                f"resume with {self.command}",
            )

    def _save(self, name: str, optimizer: Any, module: nn.Module) -> None:
        if not self.accelerator.is_main_process:
            return
        with self.run.checkpoint_dir(name) as directory:
            self.model.save_pretrained(directory / "model")
            self.processor.save_pretrained(directory / "model")
            save_trainer(directory, self.position, getattr(optimizer, "optimizer", optimizer), module)
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


def _join(batch: PackedBatch, dummy: PackedBatch) -> PackedBatch:
    """Put the dummy clip into a row of its own below ``batch``."""
    width = max(batch.input_ids.shape[1], dummy.input_ids.shape[1])

    def stack(name: str, fill: int) -> torch.Tensor:
        parts = [getattr(batch, name), getattr(dummy, name)]
        return torch.cat([nn.functional.pad(p, (0, width - p.shape[1]), value=fill) for p in parts])

    assert dummy.pixel_values is not None and dummy.grids is not None
    pixels = [p for p in (batch.pixel_values, dummy.pixel_values) if p is not None]
    grids = [g for g in (batch.grids, dummy.grids) if g is not None]
    return dataclasses.replace(
        batch,
        input_ids=stack("input_ids", 0),
        labels=stack("labels", -100),
        position_ids=stack("position_ids", 0),
        segment_ids=stack("segment_ids", 0),
        pixel_values=torch.cat(pixels),
        grids=torch.cat(grids),
        rows=(*batch.rows, (-1,)),
    )
