package attack_test

var frames []attack
