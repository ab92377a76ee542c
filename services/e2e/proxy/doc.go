// Package proxy simulates a bad network between two parts of a test. It is a TCP proxy on a loopback port that cuts, holds, loses, delays or
// slows down the bytes that pass through it, separately for each direction.
//
//	Weather{}                       all bytes pass at once
//	Refuse                          new connections are reset; Reset or Hangup also ends existing ones: a cut that both sides notice
//	Flow.Hold                       bytes and ends of connections are delayed and sent later: a partition shorter than TCP's timeouts
//	Flow.Lose                       bytes and ends of connections are lost: half-open. When the loss is over, such a connection is
//	                                reset, as by a router that has lost its state: a stream never continues with a hole in it
//	Flow.Delay, Flow.Rate           a network with high latency, or with low bandwidth
//
// It does not interpret the bytes. It buffers at most a few pages per connection and limits the number of connections.
// Close ends all connections and goroutines.
package proxy
