"""What several test modules use: small data sets, a cheap encoder, tiny networks, short trainings.

Fixtures are in the ``conftest.py`` files.
"""
