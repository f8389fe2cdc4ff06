"""Corrupted copies of whole recordings: bags, LeRobot data sets, folders, films, pictures, sounds."""
