"""Where a model ends: after one of timm's levels, or after a module on its straight line."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from torch import Tensor, nn

from fieldmark.errors import SettingError


@dataclass(frozen=True)
class Cut:
    """The end of a backbone.

    Args:
        name: path of the module whose output is the feature map.
        level: position among timm's levels, where there is no `line`.
        final_norm: pass the feature map through the model's last norm.
        line: paths of the modules that images pass through, whole and one after the other.
    """

    name: str
    level: int = -1
    final_norm: bool = False
    line: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        """What is left of the model; parameters keep their names."""
        if not self.line:
            prune = cast("Any", model).prune_intermediate_layers
            prune([self.level], prune_norm=not self.final_norm, prune_head=True)
            return model
        left = nn.Module()
        for path in self.line:
            *parents, last = path.split(".")
            place = left
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(last, model.get_submodule(path))
        return left

    def run(self, body: nn.Module, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) to the feature map (B, C, H, W)."""
        if self.line:
            for path in self.line:
                images = body.get_submodule(path)(images)
            return images
        maps: list[Tensor] = cast("Any", body).forward_intermediates(
            images,
            indices=[self.level],
            norm=self.final_norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps[0]


def levels(model: nn.Module) -> list[dict[str, Any]]:
    """What timm notes for each level: `module` (its path), `num_chs`, `reduction`."""
    return list(cast("Any", model).feature_info)


def find_cut(name: str, whole: nn.Module, level: int | str, images: Tensor) -> Cut:
    """Resolve a level of the whole model, by a dry run with `images` where it is a path.

    Raises:
        SettingError: there is no such level, or the model can't be cut there.
    """
    paths = [info["module"] for info in levels(whole)]
    if isinstance(level, str) and level not in paths:
        if level not in dict(whole.named_modules()) or not level:
            near = get_close_matches(level, [p for p, _ in whole.named_modules()], n=3)
            hint = f" Nearest modules: {', '.join(near)}." if near else ""
            raise SettingError(
                f"{name} has no level {level!r}; its levels are {level_list(whole)}.{hint}"
            )
        line = _straight_line(whole, level, images)
        if not line:
            raise SettingError(
                f"`level` {level!r} of {name} lies inside a block or beside the main line, and "
                f"can't be cut there. Use one of its levels: {level_list(whole)}."
            )
        return Cut(level, line=line)
    index = paths.index(level) if isinstance(level, str) else level
    if not -len(paths) <= index < len(paths):
        raise SettingError(
            f"`level` must be {-len(paths)} to {len(paths) - 1} or a module's path for {name}, "
            f"got {level}; its levels are {level_list(whole)}."
        )
    index %= len(paths)
    return Cut(paths[index], level=index, final_norm=index == len(paths) - 1)


def level_list(whole: nn.Module) -> str:
    """The levels in words, for messages: position, path, channels and stride of each."""
    return ", ".join(
        f"{index} = {info['module']} ({info['num_chs']} channels, stride {info['reduction']})"
        for index, info in enumerate(levels(whole))
    )


def _straight_line(whole: nn.Module, target: str, images: Tensor) -> tuple[str, ...]:
    """The modules images pass through, whole and one by one, up to `target`; () if they do not."""
    sources = sources_of(whole, lambda: whole(images), images)
    line = [target]
    while (source := sources.get(line[0])) is not None:
        if source == "":
            return tuple(line)
        line.insert(0, source)
    return ()


def sources_of(
    model: nn.Module, run: Callable[[], object], images: Tensor | None = None
) -> dict[str, str | None]:
    """For each module called, whose untouched output it was fed: "" for the images themselves.

    None where something happened to the tensor in between, or the module was called twice.
    """
    held = [images]  # keeps every tensor alive, so that no id is used again
    made = {id(images): ("", 0)}  # tensor -> the last module to return it, and its version then
    sources: dict[str, str | None] = {}

    def entered(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            maker, version = made.get(id(args[0]) if len(args) == 1 else 0, (None, 0))
            untouched = maker is not None and args[0]._version == version
            sources[name] = maker if untouched and name not in sources else None

        return hook

    def left(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):
                held.append(output)
                made[id(output)] = (name, output._version)

        return hook

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(entered(name)))
            handles.append(module.register_forward_hook(left(name)))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return sources
