// Package proxy puts a bad network between two parts of a test: a TCP proxy on a loopback port that cuts, holds, loses, delays or
// trickles what passes through it, each way by itself.
//
//	Weather{}                       all passes at once
//	Refuse                          new connections are reset; with Reset or Hangup the old ones too: a cut that both sides see
//	Flow.Hold                       bytes wait, ends of connections too, and go on later: a partition shorter than TCP's patience
//	Flow.Lose                       bytes vanish, ends of connections too: half-open. When the loss is over such a connection is
//	                                reset, as by a router that has forgotten it: a stream never goes on with a hole in it
//	Flow.Delay, Flow.Rate           a long line, a thin one
//
// It knows nothing of what it carries. It holds at most a few pages a connection and a bounded number of connections, and
// Close ends everything that it started.
package proxy
