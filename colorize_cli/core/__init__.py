"""Basics shared by all packages. Imports no other package of this program."""
