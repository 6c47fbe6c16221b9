"""What a report must be to be believed: derives it from the evidence again, and compares.

It needs what `fedkd.audit.verify` needs, and nothing else of fedkd, so that an auditor can read
and run it by itself. Builder and verifier share one function from evidence to statements: a report
is what that function gives, to the byte, or it is refuted.
"""

from fedkd.report.verify.catalogue import Catalogue, catalogue
from fedkd.report.verify.deriving import Derived, derive
from fedkd.report.verify.evidence import Evidence, read_evidence
from fedkd.report.verify.judging import judge

__all__ = [
    "Catalogue",
    "Derived",
    "Evidence",
    "catalogue",
    "derive",
    "judge",
    "read_evidence",
]
