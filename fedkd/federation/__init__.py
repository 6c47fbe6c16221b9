"""Who does what, and when: the round, the participant's turn, and the engines they run on."""
