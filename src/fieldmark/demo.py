"""The second half of `fieldmark demo`: two tuning questions about the toy field guide."""

from pathlib import Path

from rich.console import Console

from fieldmark import durable
from fieldmark.questions import executor_of, run
from fieldmark.shipped import demo_studies


def ask(console: Console, folder: Path, photos: Path) -> None:
    """Run the demo's studies on its drawings, and print what they found.

    Args:
        console: Is printed to.
        folder: The demo's; study files are put there, to be read and changed.
        photos: The drawings.
    """
    for name, text in demo_studies().items():
        file = folder / f"{name}.yaml"
        if not file.exists():
            durable.replace(file, text.encode())
        out = folder / "studies" / name
        command = f"fieldmark study run {file} data.folder={photos} --out {out}"
        console.print(f"\n[cyan]{command}[/cyan]", highlight=False, soft_wrap=True)
        run(console, str(file), [f"data.folder={photos}"], out, executor_of("local", 1, None))
