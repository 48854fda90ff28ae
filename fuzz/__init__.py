"""Random calls of everything that users call, each judged: `python -m fuzz --minutes 10`.

A call must give a finite, sensible and true result (perhaps with a warning of the package), or an error of the package
that says what was expected. What else can happen is a finding: another error, a wrong number, a warning of a library, a
change of torch's global state, no answer within seconds, the end of the process.

`targets` has what is called and how results are judged; `oracle` judges how a call ended; `run` draws the calls, whose
inputs come from `tests.helpers.strategies`; `work` watches over the processes that make them.
"""
