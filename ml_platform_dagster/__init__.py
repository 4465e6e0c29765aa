"""The platform as Dagster definitions: what `assets`, `sensors` and `resources` hold, by one name.

The three folders and `definitions.py` lie at the top of the repository; here are links to them.
A wheel holds their files below this name, so that no package is called `assets` where it is
installed.
"""
