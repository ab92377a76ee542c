// Package proxy puts a bad network between two parts of a test: a TCP proxy on a loopback port that cuts, holds, loses, delays or
// trickles what passes through it, each way by itself.
//
//	Weather{}                       all passes at once
//	Refuse                          new connections are reset; with Reset or Hangup the old ones too: a cut that both sides see
//	Flow.Hold                       bytes and ends of connections are delayed and sent later: a partition shorter than TCP's timeouts
//	Flow.Lose                       bytes and ends of connections are lost: half-open. When the loss is over such a connection is
//	                                reset, as by a router that has lost its state: a stream never continues with a hole in it
//	Flow.Delay, Flow.Rate           a long line, a thin one
//
// It does not interpret the bytes. It buffers at most a few pages per connection and has a bounded number of connections,
// and Close ends everything that it started.
package proxy
