package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// document is the input for generating SDKs in other languages.
type document struct {
	// Version is the number of the client protocol.
	Version         int         `json:"version"`
	Limits          []limit     `json:"limits"`
	ErrorCodes      []errorCode `json:"error_codes"`
	CloseCodes      []closeCode `json:"close_codes"`
	FinalCloseCodes codeRange   `json:"final_close_codes"`
	Kinds           []kind      `json:"kinds"`
}

type limit struct {
	Name  string        `json:"name"`
	Value number        `json:"value"`
	Unit  protocol.Unit `json:"unit"`
	By    protocol.Part `json:"checked_by"`
	Error string        `json:"error,omitempty"`
	Close string        `json:"close,omitempty"`
	Doc   string        `json:"doc"`
}

type errorCode struct {
	Code      int32  `json:"code"`
	Name      string `json:"name"`
	Temporary bool   `json:"temporary"`
	Final     bool   `json:"final"`
	Doc       string `json:"doc"`
	Why       string `json:"why"`
}

type closeCode struct {
	Code      errcode.CloseCode `json:"code"`
	Name      string            `json:"name"`
	Reconnect bool              `json:"reconnect"`
	Final     bool              `json:"final"`
	Doc       string            `json:"doc"`
	Why       string            `json:"why"`
}

// codeRange is the range of close codes after which a client does not reconnect, even if it does not know the code.
type codeRange struct {
	First errcode.CloseCode `json:"first"`
	Last  errcode.CloseCode `json:"last"`
}

type kind struct {
	Number int32              `json:"number"`
	Name   string             `json:"name"`
	Level  conversation.Level `json:"level"`
	Class  string             `json:"class"`
	Roles  []string           `json:"roles"`
	// Direct means that the kind is allowed in direct conversations. Message means that its events are messages.
	Direct  bool   `json:"direct"`
	Message bool   `json:"message"`
	Doc     string `json:"doc"`
}

// number is a number of up to 64 bits. Above 2^53 it is written as a string, as in protobuf JSON, because most JSON
// readers cannot represent it as a number.
type number uint64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	if n > 1<<53 {
		return json.Marshal(strconv.FormatUint(uint64(n), 10))
	}
	return json.Marshal(uint64(n))
}

func collect() document {
	d := document{Version: 1, FinalCloseCodes: codeRange{errcode.FirstFinal, errcode.LastFinal}}
	for _, l := range protocol.Limits {
		one := limit{Name: l.Name, Value: number(l.Value), Unit: l.Unit, By: l.By, Doc: l.Doc}
		if l.Error != 0 {
			one.Error = errcode.Name(l.Error)
		}
		if l.Close != 0 {
			one.Close = l.Close.String()
		}
		d.Limits = append(d.Limits, one)
	}
	for _, c := range errcode.Codes {
		d.ErrorCodes = append(d.ErrorCodes, errorCode{int32(c.Code), c.Name, c.Temporary, c.Final(), c.Meaning, c.Why})
	}
	for _, c := range errcode.CloseCodes {
		d.CloseCodes = append(d.CloseCodes, closeCode{c.Code, c.Name, c.Code.Reconnect(), c.Final, c.Meaning, c.Why})
	}
	messages := conversation.MessageKinds()
	for _, number := range conversation.Kinds() {
		described, name := conversation.Describe(number)
		d.Kinds = append(d.Kinds, kind{
			Number: int32(number), Name: name, Level: described.Level, Class: described.Class.String(), Roles: described.Roles.Names(),
			Direct: described.InDirect, Message: slices.Contains(messages, number), Doc: described.Doc,
		})
	}
	return d
}

func (d document) json() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(d)
	return out.Bytes(), err
}
