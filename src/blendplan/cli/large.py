"""``blendplan plan`` into a folder: many request files, larger than memory together."""

from pathlib import Path
from time import perf_counter

from blendplan.cli.answer import Answer, headline
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.job import Job, notes_of
from blendplan.cli.progress import Progress


def plan_into_folder(
    job: Job,
    policy: str,
    folder: Path,
    processes: int | None,
    ray: str | None,
    answer: Answer,
) -> None:
    """Plan, and say what the plan comes to."""
    started = perf_counter()
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=[policy]) as clock,
    ):
        from blendplan.planning.large.output import REJECTS
        from blendplan.planning.large.planner import plan_files

        progress.stage("looking for request files")
        planned = plan_files(
            job.files,
            folder,
            policy=policy,
            on_error=job.on_error,
            rejects=job.stated_rejects,
            processes=processes,
            ray=ray,
            progress=progress.report,
            remark=progress.line,
            **job.shape,
            **job.options,
        )
    for note in notes_of(planned.metadata, job.stated_rejects or folder / REJECTS):
        answer.remark(note)

    from blendplan.report.summary import facts, headline_rows

    values = headline(planned.metadata) | {
        "total_output_tokens": None,
        "output": str(folder),
        "parts": len(planned),
        "rejected": planned.metadata.get("rejected", {}).get("requests", 0),
        "repeats": None,
        "plan_wall_s": perf_counter() - started - clock.seconds,
        "compile_s": clock.seconds,
    }
    answer.tell(
        values,
        lambda shown: facts(
            headline_rows(shown) | {"plan folder": f"{shown['output']}, parts: {shown['parts']}"}
        ),
    )
