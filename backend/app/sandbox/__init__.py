"""What stands in for the outside world in development and tests: providers on loopback.

`app` puts the parts together and `server` runs them. `resend`, `push` and `fcm` speak providers'
APIs; `faults` makes them fail on request; `mailbox` and `ledger` keep what arrived in `journal`'s
files; `inspection`, `pages` and `device_pages` show it to tests and to people; `guard` keeps
everybody else out.
"""
