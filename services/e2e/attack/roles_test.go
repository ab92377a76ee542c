package attack_test

var roles []attack
