package attack_test

var ids []attack
