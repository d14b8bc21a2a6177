# SPDX-License-Identifier: GPL-2.0-only
"""What exercises a function of the engine: guests, captures, known bugs and tests, from a record that ships with the package.

* `sources`  the functions that the engine has
* `record`   the record, record.txt, which `python tools/exercised.py` writes
* `asked`    the functions that a file, a name or a patch means
* `best`     which of what is recorded to run for files and functions, the best first
"""
