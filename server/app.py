"""The ServerApp: opens the run that its configuration names, conducts it, examines it.

Where the configuration names an evaluation, too, the run is over, and its student is evaluated.
"""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedkd.cli.conduct import conduct, seal, server_log
from fedkd.cli.conduct_evaluation import conduct_evaluation
from fedkd.cli.examine import examine, summarise
from fedkd.cli.run import open_run

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Round by round until the closing question; then the figures."""
    run = open_run(str(context.run_config["out"]), str(context.run_config.get("overrides", "")))
    if evaluation := str(context.run_config.get("evaluation", "")):
        conduct_evaluation(run, evaluation, grid)
        return
    with run.followed():
        with server_log(run) as log:
            conducted = conduct(run, grid, log)
            figures = examine(run, log)
            seal(run, conducted)
        summarise(run, figures)
