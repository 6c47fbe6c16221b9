"""`python -m fedkd.audit.verify`: the same verifier as the zipapp."""

import sys

from fedkd.audit.verify.command import main

sys.exit(main())
