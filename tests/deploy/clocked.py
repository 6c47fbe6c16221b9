"""A hospital's supervisor with its own programs, of which the node gets more environment.

python tests/deploy/clocked.py HOSPITAL ENVIRONMENT(JSON) [FOLDER]

With a FOLDER the node is that of `holding_node.py`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import NODE, programs
from fedkd.deploy.supervising import Supervisor

HOLDING = Path(__file__).with_name("holding_node.py")


def main() -> int:
    hospital, more = Hospital(Path(sys.argv[1])), json.loads(sys.argv[2])
    run = [
        replace(it, environment={**it.environment, **more}) if it.name == NODE else it
        for it in programs(hospital, Whose())
    ]
    for folder in sys.argv[3:]:
        holding = [sys.executable, "-I", str(HOLDING), folder]
        run = [
            replace(it, command=[*holding, *it.command[4:]]) if it.name == NODE else it
            for it in run
        ]
    return Supervisor(hospital.run, run).run()


if __name__ == "__main__":
    sys.exit(main())
