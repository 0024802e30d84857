"""The forms of the PyTorch program, by name; ``torch_forms`` holds their functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Form(NamedTuple):
    """A way to write the step in PyTorch.

    Attributes:
        title: what the table calls it.
        function: its name in ``torch_forms``.
        options: the function's keyword arguments.
        works: those that it can do.
        needs_gpu: whether it is one for GPUs only.
    """

    title: str
    function: str
    options: Mapping[str, Any] = {}
    works: tuple[str, ...] = ("cnn", "mlp")
    needs_gpu: bool = False


FORMS = {
    "plain": Form("modules, plain", "plain"),
    "in_place": Form("modules, channels last, in place", "in_place"),
    "by_hand": Form("by hand", "by_hand"),
    "compile": Form("torch.compile", "compiled"),
    "vmap": Form("torch.func.vmap", "vmap"),
    "vmap_channels_last": Form(
        "torch.func.vmap, channels last", "vmap", {"channels_last": True}, works=("cnn",)
    ),
    "baddbmm": Form("baddbmm", "baddbmm", works=("mlp",)),
    "streams": Form("by hand, streams", "by_hand", {"streams": True}, needs_gpu=True),
    "graph": Form("by hand, CUDA graph", "by_hand", {"graph": True}, needs_gpu=True),
    "graph_of_streams": Form(
        "by hand, CUDA graph of streams",
        "by_hand",
        {"streams": True, "graph": True},
        needs_gpu=True,
    ),
}


def forms_for(work: str, *, gpu: bool) -> list[str]:
    """The forms that can do a work on a device."""
    return [n for n, form in FORMS.items() if work in form.works and (gpu or not form.needs_gpu)]
