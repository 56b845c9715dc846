"""Commands that the explorer starts: processes of their own, which outlive a page and the explorer itself.

A job is a folder `STORE/jobs/ID` with `job.json` (its form and values, from which its command is made), `log` (what
the command says), `lock` (held while any of its processes lives), `guard` (held by the process that watches over it),
`command.json` (its process group), `cancel` (a line for each time that it was asked to stop) and `end.json` (the exit
code).
Nothing here needs torch; the command does, in its own process.
"""

from procpre_interp.jobs.forms import FORMS, Form, command_line
from procpre_interp.jobs.option import Option, Value
from procpre_interp.jobs.store import Job, JobStore

__all__ = ["FORMS", "Form", "Job", "JobStore", "Option", "Value", "command_line"]
