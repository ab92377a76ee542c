package stretch

// Next returns the next step of a state that is reading. It is the only function that decides what a client is sent.
func (s *State) Next(v View) Step {
	if s.stale {
		return Step{Do: Again}
	}
	if v.Page == nil {
		return s.nextUnread(v)
	}
	switch {
	case !v.Page.Known && s.open:
		return Step{Do: Detach}
	case !v.Page.Known:
		return s.rest()
	case v.Page.Diverged && s.open:
		return Step{Do: Diverge}
	case v.Page.Diverged:
		return Step{Do: Forget}
	}
	for _, one := range v.Page.Stretches {
		if one.Last > s.told {
			return s.nextOf(one, v)
		}
	}
	return s.nextAfter(v)
}

// nextUnread returns the step while no page was read. The first membership of a client needs no page if it has not ended.
func (s *State) nextUnread(v View) Step {
	switch {
	case s.open || s.told > 0:
		return Step{Do: Read}
	case !v.Listed:
		return Step{Do: LookUp}
	case v.Ended != 0 && (s.begin == 0 || v.Ended < s.begin):
		return Step{Do: Begin, From: v.Ended} // its notice was lost, or is late
	case v.Present != 0 && (s.begin == 0 || s.begin >= v.Present):
		return Step{Subscribe, v.Present, v.Present - 1}
	case s.begin != 0:
		return Step{Do: Read}
	default:
		return s.rest()
	}
}

// nextOf returns the step for the first stretch that the client does not have completely.
func (s *State) nextOf(one Stretch, v View) Step {
	from := one.From
	if from == 0 {
		from = s.told + 1
	}
	if s.open {
		switch {
		case s.told > 0 && one.From != 0 && one.From != s.inside:
			return Step{Do: Detach, Last: s.told} // the membership before one has ended
		case s.told == 0 && from > 1:
			return Step{Hide, 1, from - 1}
		}
		return Step{Do: Tell, Last: one.Last}
	}
	if !one.Ended && v.Page.Member {
		switch {
		case !v.Listed:
			return Step{Do: LookUp}
		case v.Present == from:
			return Step{Subscribe, from, from - 1}
		}
		// The membership ended since the page was read, or ends beyond the page.
	}
	if (s.told == 0 && s.isOld(one)) || (s.skipped && (one.From == 0 || s.isOld(one))) {
		return Step{Do: Skip, Last: one.Last}
	}
	return Step{Attach, from, one.Last}
}

// nextAfter returns the step when the client has everything in the page.
func (s *State) nextAfter(v View) Step {
	switch {
	case v.Page.Head > s.After():
		return Step{Do: Again} // there are more pages
	case !s.open:
		return s.rest() // a present membership in this page began below the position, so the page is outdated
	case !v.Page.Member:
		return Step{Do: Detach, Last: s.told}
	case !v.Listed:
		return Step{Do: LookUp}
	case v.Present != 0 && v.Present <= s.told:
		return Step{Subscribe, v.Present, s.told} // the page does not contain the end of the membership; the subscription will receive it
	default:
		return Step{Do: Again} // the membership ended after the page was read
	}
}

func (s *State) rest() Step {
	if s.again {
		return Step{Do: Again}
	}
	return Step{Do: Rest}
}
