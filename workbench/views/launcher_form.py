"""The launcher's form: controls made from the recipe's schema. Imported only when it is shown in a notebook."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets

from workbench.errors import RecipeError, WorkbenchError
from workbench.views.launcher_fields import (
    Field,
    field_of,
    frame_fields,
    frames_of,
    general_fields,
    shown,
    stage_fields,
    typed,
    value_at,
)
from workbench.views.widget import ModuleWidget, widget_class

if TYPE_CHECKING:
    from workbench.views.launcher import Launcher

BASE = "base: the recipe's own stages"
LABELS = {"description_width": "120px"}
CONTROL = {"width": "330px"}


class LauncherShown:
    """The widgets of a launcher. Every handler says what went wrong beside what caused it; nothing typed is lost."""

    def __init__(self, view: Launcher) -> None:
        self.view = view
        self._quiet = False  # while the form itself sets values
        self.controls: dict[str, ipywidgets.DOMWidget] = {}
        self.errors: dict[str, ipywidgets.HTML] = {}
        names = {str(self._relative(path)): path for path in view.recipes}
        self.recipe = self._top(ipywidgets.Dropdown, "Recipe", options=names, value=view.recipe)
        self.machine = self._top(ipywidgets.Dropdown, "Machine", options=[view.machine], value=view.machine)
        self.name = self._top(ipywidgets.Text, "Job name", continuous_update=False)
        self.quick = self._top(ipywidgets.Checkbox, "Quick: only the recipe's quick section", indent=True)
        self.arm = self._top(ipywidgets.Dropdown, "Arm", options=[(BASE, None)])
        self.stage = self._top(ipywidgets.Dropdown, "Stage", options=[("", None)])
        self.extra = self._top(ipywidgets.Textarea, "More changes", continuous_update=False, rows=2)
        self.extra.placeholder = "KEY=VALUE, one a line, for example evaluation.common_frames=8"
        self.fields = ipywidgets.VBox()
        self.problem = ipywidgets.HTML()
        self.changes: ModuleWidget = widget_class("table")(view.pieces()[0])  # type: ignore[arg-type]
        self.estimate = ipywidgets.Button(description="Estimate", tooltip="Tokens, memory and time")
        self.submit = ipywidgets.Button(description="Submit", button_style="primary", icon="play")
        self.estimates, self.said = ipywidgets.HTML(), ipywidgets.HTML()
        self.below = ipywidgets.VBox()
        self._listen()
        self.box = ipywidgets.VBox([
            ipywidgets.HTML("<h3>Launcher</h3>"),
            _grid([self.recipe, self.machine, self.name, self.quick]),
            _heading("Stage"), _grid([self.arm, self.stage]), self.fields, self.extra, self.problem,
            _heading("What differs from the file"), self.changes,
            ipywidgets.HBox([self.estimate, self.submit]), self.estimates, self.said, self.below,
        ])  # fmt: skip
        self._machines()
        self.refill()

    # -- making --------------------------------------------------------------------------------------------

    def _relative(self, path: Any) -> Any:
        return path.relative_to(self.view.root) if path.is_relative_to(self.view.root) else path

    def _top(self, kind: type[ipywidgets.DOMWidget], label: str, **values: Any) -> Any:
        return kind(description=label, style=LABELS, layout={"width": "450px"}, **values)

    def _listen(self) -> None:
        self._on(self.recipe, self._choose_recipe)
        self._on(self.machine, lambda value: setattr(self.view, "machine", value))
        self._on(self.name, lambda value: setattr(self.view, "name", value))
        self._on(self.quick, self._choose_quick)
        self._on(self.arm, lambda _: self._fill_stages())
        self._on(self.stage, lambda _: self._fill_fields())
        self._on(self.extra, lambda value: setattr(self.view, "extra", value))
        self.estimate.on_click(lambda _: self._do_estimate())
        self.submit.on_click(lambda _: self._do_submit())

    def _on(self, widget: Any, do: Callable[[Any], Any]) -> None:
        def changed(change: Any) -> None:
            if not self._quiet:
                do(change["new"])
                self.check()

        widget.observe(changed, "value")

    def _machines(self) -> None:
        try:
            names = self.view.machines
        except WorkbenchError as error:
            self.said.value = _note(str(error))
            return
        self._quiet = True
        self.machine.options = names if self.view.machine in names else [self.view.machine, *names]
        self.machine.value = self.view.machine
        self._quiet = False

    def refill(self) -> None:
        """Build the form anew for the recipe as it stands."""
        arms = list(self._values().get("arms") or {})
        chosen = self.arm.value
        self._quiet = True
        self.arm.options = [(BASE, None), *((name, name) for name in arms)]
        self.arm.value = chosen if chosen in arms else (arms[0] if arms else None)
        self.name.value = self.view.name
        self._quiet = False
        self._fill_stages()
        self.check()

    def _values(self) -> dict[str, Any]:
        try:
            return self.view.values()
        except RecipeError:  # the file itself is no YAML: `check` says so
            return {}

    @property
    def _place(self) -> str:
        return "stages" if self.arm.value is None else f"arms.{self.arm.value}.stages"

    def _fill_stages(self) -> None:
        stages = value_at(self._values(), self._place) or []
        self._quiet = True
        self.stage.options = [
            (str(stage.get("name", i)), f"{self._place}.{i}") for i, stage in enumerate(stages)
        ] or [("none", None)]
        self.stage.value = self.stage.options[-1][1]
        self._quiet = False
        self._fill_fields()

    def _fill_fields(self) -> None:
        values, stage = self._values(), self.stage.value
        self.controls, self.errors = {}, {}
        groups = [("Recipe", [field_of("seeds"), *general_fields()])]
        if stage is not None:
            own = value_at(values, stage) or {}
            policy = (own.get("frames") or {}).get("policy", "fixed")
            frames = [field_of(f"{stage}.frames.policy", "frame policy"), *frame_fields(stage, policy)]
            groups = [("", frames), ("", stage_fields(stage, own)), *groups]
        boxes: list[Any] = []
        for title, fields in groups:
            boxes += [_heading(title)] if title else []
            boxes.append(_grid([self._control(field, value_at(values, field.key)) for field in fields]))
        self.fields.children = boxes

    def _control(self, field: Field, value: Any) -> ipywidgets.Widget:
        common = {"description": field.label, "style": LABELS, "layout": CONTROL, "tooltip": field.note}
        if field.kind == "choice":
            options = list(field.choices)
            value = value if value in options else options[0]
            widget = ipywidgets.Dropdown(options=options, value=value, **common)
        elif field.kind == "switch":
            widget = ipywidgets.Checkbox(value=bool(value), **common)
        elif field.kind == "number" and isinstance(value, int | float):
            kind = ipywidgets.IntText if field.whole else ipywidgets.FloatText
            widget = kind(value=value, step=1 if field.whole else 1e-5, **common)
        else:
            widget = ipywidgets.Text(value=shown(value), continuous_update=False, **common)
        text = isinstance(widget, ipywidgets.Text)
        self._on(widget, lambda new: self._change(field, typed(new) if text else new))
        self.controls[field.key] = widget
        note = ipywidgets.HTML(f'<small style="opacity:.8">{html.escape(field.note)}</small>')
        note.layout.margin = "0 0 0 126px"
        self.errors[field.key] = ipywidgets.HTML()
        return ipywidgets.VBox([widget, note, self.errors[field.key]], layout={"width": "470px"})

    # -- following the reader ------------------------------------------------------------------------------

    def _choose_recipe(self, path: Any) -> None:
        self.view.recipe = path
        self.view.estimated = None
        self.refill()

    def _change(self, field: Field, value: Any) -> None:
        stage, _, name = field.key.rpartition(".frames.")
        if not stage:
            self.view.set(field.key, value)
            return
        # a policy takes its own parameters only, so the section is replaced as a whole
        before = value_at(self._values(), f"{stage}.frames") or {}
        now = frames_of({**before, name: value})
        self.view.set(f"{stage}.frames", now)
        if value_at(self.view.file_values(), f"{stage}.frames") and now == frames_of(
            value_at(self.view.file_values(), f"{stage}.frames")
        ):
            self.view.overrides.pop(f"{stage}.frames", None)
        if name == "policy":
            self._fill_fields()

    def check(self) -> None:
        """Show what differs, or what is wrong and where."""
        problem = self.view.problem()
        for box in (*self.errors.values(), self.problem):
            _set(box, "")
        if problem is not None:
            place = self._place_of(problem)
            beside = f"{problem.found}. {problem.todo}."  # the control says what was set
            _set(place, _note(str(problem) if place is self.problem else beside[:1].upper() + beside[1:]))
        self.submit.disabled = self.estimate.disabled = problem is not None
        self.changes.show(self.view.pieces()[0].data)  # type: ignore[union-attr]
        if problem is None:
            self.name.placeholder = self.view.job_name
            quick = self.view.resolved().quick
            self.quick.disabled = quick is None
        if self.view.estimated is None:
            _set(self.estimates, "")

    def _place_of(self, problem: RecipeError) -> ipywidgets.HTML:
        """The line below the control that the problem is about; else below the form."""
        where = (problem.where or "").removeprefix("--set ").partition("=")[0]
        inside = [key for key in self.errors if key == where or key.startswith(f"{where}.")]
        named = [
            key
            for key in inside
            if f"`{key}`" in str(problem) or f"{key.rpartition('.')[2]}`" in str(problem)
        ]
        found = (named or inside) if where else []
        return self.errors[found[0]] if found else self.problem

    def _choose_quick(self, quick: bool) -> None:
        self.view.quick, self.view.estimated = quick, None

    def _do_estimate(self) -> None:
        from workbench.views.launcher import sentences

        self.estimate.disabled = True
        _set(self.estimates, _said("Estimating: the model is described, nothing is loaded …"))
        try:
            first, *basis = sentences(self.view.estimate())
            rows = "".join(f"<li>{html.escape(line)}</li>" for line in basis)
            _set(self.estimates, f'<div class="wb"><p>{html.escape(first)}</p><ul>{rows}</ul></div>')
        except WorkbenchError as error:
            _set(self.estimates, _note(str(error)))
        finally:
            self.estimate.disabled = False

    def _do_submit(self) -> None:
        self.submit.disabled = True  # a second press would submit it twice
        _set(self.said, _said(f"Submitting to {self.view.machine} …"))
        try:
            job = self.view.submit()
            notes = "".join(f"<p>{html.escape(note)}</p>" for note in job.notes)
            address = html.escape(job.address)
            _set(self.said, f'<div class="wb"><p role="status"><b>{address}</b> is started.</p>{notes}</div>')
            assert self.view.monitor is not None
            self.below.children = (self.view.monitor.widget, *self.below.children)
        except WorkbenchError as error:
            _set(self.said, _note(str(error)))
        finally:
            self.submit.disabled = False


def _set(box: ipywidgets.HTML, text: str) -> None:
    if box.value != text:
        box.value = text


def _note(text: str) -> str:
    return f'<div class="wb"><p class="wb-note" role="alert">{html.escape(text)}</p></div>'


def _said(text: str) -> str:
    return f'<div class="wb"><p class="wb-said" role="status">{html.escape(text)}</p></div>'


def _heading(text: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<b>{html.escape(text)}</b>")


def _grid(children: list[Any]) -> ipywidgets.Box:
    return ipywidgets.Box(
        children, layout={"flex_flow": "row wrap", "align_items": "flex-start", "gap": "2px 16px"}
    )
