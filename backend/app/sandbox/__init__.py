"""What stands in for the outside world in development and tests: providers on loopback.

`app` puts the parts together and `server` runs them. `resend` speaks a provider's API; `faults`
makes it fail on request; `mailbox` keeps what arrived in `journal`'s file; `inspection` and
`pages` show it to tests and to people; `guard` keeps everybody else out.
"""
