"""Pages over many runs that a local server shows: their history, several compared, their samples, unfinished runs.

How it works: `found` looks for run directories, `pages` writes a page by the code that writes reports, and `app` is the
web application, which `dfkeval view` serves. A page asks every two seconds whether a file has changed.

Guarantees:

- Nothing is written, and no file is sent: a name in an address is looked up among the runs that were found.
- Everything that comes from data or a model is escaped, and each page has a strict Content-Security-Policy."""
