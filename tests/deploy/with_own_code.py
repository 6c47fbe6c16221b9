"""A hospital's supervisor with its own programs, whose service finds code of the hospital's own.

python tests/deploy/with_own_code.py HOSPITAL FOLDER METRICS_PORT
"""

import sys
from dataclasses import replace
from pathlib import Path

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import SERVICE, programs
from fedkd.deploy.supervising import Supervisor

CODE = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from fedkd.deploy.service import main; sys.exit(main())"
)


def main() -> int:
    hospital, folder = Hospital(Path(sys.argv[1])), sys.argv[2]
    run = [
        replace(it, command=[sys.executable, "-I", "-c", CODE, folder, *it.command[4:]])
        if it.name == SERVICE
        else it
        for it in programs(hospital, Whose(), metrics=int(sys.argv[3]))
    ]
    return Supervisor(hospital.run, run).run()


if __name__ == "__main__":
    sys.exit(main())
