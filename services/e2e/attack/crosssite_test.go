package attack_test

var crossSite []attack
