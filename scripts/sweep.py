"""Sweeps Expert-Sample's numbers, token temperature and k over a task's questions."""

import sys

from _run_text import comparison_text
from _running import digest_of
from _sweep_files import write_sweep
from _sweep_options import parser_of, points_of

from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.endings import ends_quietly, input_errors
from jaxmoe.cli.questions import questions_of
from jaxmoe.cli.sampler_options import sampler_of
from jaxmoe.cli.task_options import draw_of


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser_of(__doc__).parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe.evals.evaluate import evaluate
        from jaxmoe.evals.run import read_run
        from jaxmoe.evals.sweeps import check_points, compare_points

        task, questions, data = questions_of(args)
        model = jaxmoe.load(args.checkpoint)
        points = points_of(args, model.config)
        check_points(points, model.config)
        sampler, digest = sampler_of(args, model), digest_of(args.checkpoint)
        for index, point in enumerate(points):
            print(f"[{index + 1}/{len(points)}] {point.name}", flush=True)
            draw = draw_of(args, point.policy, point.sampler(sampler))
            with EvaluationBar(quiet=False) as bar:
                evaluate(
                    model,
                    task,
                    questions,
                    draw,
                    args.out / point.name,
                    checkpoint=digest,
                    data=data,
                    progress=bar.show,
                )
        runs = [read_run(args.out / point.name) for point in points]
        found = compare_points(points, runs)
        write_sweep(args.out, points, found)
    print(comparison_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
