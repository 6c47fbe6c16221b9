"""Where does it run? Authorities, rosters, processes and folders of a federation on real machines.

Nothing is imported here: what faces the network must load neither models nor records.
"""
