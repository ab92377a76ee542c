package frame

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/frame/internal/frametest"
)

// These tests run the generated code for a schema with every feature that framegen supports. Therefore features that the
// protocol does not use yet are tested too.

func readTest(data []byte, strict bool) (*frametest.Frame, *Error) {
	s, m := scanner{data: data, strict: strict}, &frametest.Frame{}
	s.readFrame(m)
	s.end()
	return m, s.err
}

func checkTest(data []byte) *Error {
	w := wire{}
	if w.checkFrame(data) == (w.err != nil) {
		panic("the result and the error of a check do not agree")
	}
	return w.err
}

func encode(t require.TestingT, options protojson.MarshalOptions, m proto.Message) []byte {
	data, err := options.Marshal(m)
	require.NoError(t, err)
	return data
}

func TestGeneratedCodeAgreesWithTheOfficialLibraries(t *testing.T) {
	check := func(t require.TestingT, want *frametest.Frame, knownEnums bool) {
		var canonical bytes.Buffer
		require.NoError(t, json.Compact(&canonical, encode(t, protojson.MarshalOptions{}, want)))
		data := appendFrameJSON(nil, want)
		require.Equal(t, canonical.String(), string(data))
		for _, data := range [][]byte{
			data,
			encode(t, protojson.MarshalOptions{UseProtoNames: true, Multiline: true}, want),
			encode(t, protojson.MarshalOptions{UseEnumNumbers: true, EmitDefaultValues: true}, want),
		} {
			got, err := readTest(data, knownEnums)
			require.Nil(t, err)
			require.True(t, proto.Equal(want, got), "want %v\ngot %v", want, got)
		}
		if knownEnums {
			data, err := proto.Marshal(want)
			require.NoError(t, err)
			require.Nil(t, checkTest(data))
		}
	}
	for _, open := range []bool{false, true} {
		options := frametest.Options{OpenEnums: open, NoChoice: true}
		frametest.EveryField(&frametest.Frame{}, func(name string, way frametest.Way) {
			options := options
			options.Set = way
			random := rapid.Custom(func(t *rapid.T) *frametest.Frame {
				m := &frametest.Frame{}
				frametest.Fill(t, m, options)
				return m
			})
			t.Run(name, func(t *testing.T) {
				for seed := range 10 {
					check(t, random.Example(seed), !open)
				}
			})
		})
		t.Run("any", rapid.MakeCheck(func(t *rapid.T) {
			want := &frametest.Frame{}
			frametest.Fill(t, want, options)
			check(t, want, !open)
		}))
	}
}

func TestPresenceIsKept(t *testing.T) {
	zero := &frametest.Optionals{
		Text: new(string), Blob: []byte{}, Flag: new(bool), Small: new(int32), Large: new(int64), Count: new(uint32), Seq: new(uint64),
		Color: new(frametest.Color), Empty: &frametest.Empty{},
	}
	const text = `{"text":"","blob":"","flag":false,"small":0,"large":"0","count":0,"seq":"0","color":"COLOR_UNSPECIFIED","empty":{}}`
	requireJSON(t, text, appendOptionalsJSON(nil, zero))
	got, err := readTest([]byte(`{"optionals":`+text+`}`), true)
	require.Nil(t, err)
	require.True(t, proto.Equal(zero, got.GetOptionals()))
	requireJSON(t, `{}`, appendOptionalsJSON(nil, &frametest.Optionals{}))
	requireJSON(t, `{}`, appendOptionalsJSON(nil, nil))
	requireJSON(t, `{"count":0}`, appendFrameJSON(nil, &frametest.Frame{Choice: &frametest.Frame_Count{}}))
	requireJSON(t, `{"tree":{}}`, appendFrameJSON(nil, &frametest.Frame{Choice: &frametest.Frame_Tree{}}))
}

// requireJSON compares bytes, because the order of fields matters.
func requireJSON(t *testing.T, want string, got []byte) {
	t.Helper()
	require.Equal(t, want, string(got))
}

func TestMapsAreSorted(t *testing.T) {
	values := map[string]bool{}
	for c := 'z'; c >= 'a'; c-- {
		values[string(c)] = true
	}
	data := string(appendMapsJSON(nil, &frametest.Maps{Flags: values}))
	for c := 'a'; c < 'z'; c++ {
		require.Less(t, strings.IndexRune(data, c), strings.Index(data, string(c+1)+`":true`))
	}
}

func TestGeneratedCodeRefusesByField(t *testing.T) {
	deep := strings.Repeat(`{"one":`, 20)
	for _, c := range []struct{ data, field, message string }{
		{`{"kinds":{"small":2147483648}}`, "kinds.small", "32 bits"},
		{`{"kinds":{"small":-2147483649}}`, "kinds.small", "32 bits"},
		{`{"kinds":{"large":"9223372036854775808"}}`, "kinds.large", "64 bits"},
		{`{"kinds":{"count":-1}}`, "kinds.count", "from 0 to 4294967295"},
		{`{"kinds":{"flag":1}}`, "kinds.flag", "true or false"},
		{`{"kinds":{"blob":"*"}}`, "kinds.blob", "base64"},
		{`{"kinds":{"blob":"AA="}}`, "kinds.blob", "base64"},
		{`{"kinds":{"blob":1}}`, "kinds.blob", "must be a string"},
		{`{"kinds":{"color":7}}`, "kinds.color", "does not know"},
		{`{"kinds":{"color":4294967297}}`, "kinds.color", "does not know"},
		{`{"kinds":{"renamed":"a","other_name":"b"}}`, "kinds.other_name", "given twice"},
		{`{"kinds":{"otherName":"a"}}`, "kinds", "does not know"},
		{`{"optionals":{"text":"a","text":"a"}}`, "optionals.text", "given twice"},
		{`{"lists":{"colors":[1,"COLOR_BLUE"]}}`, "lists.colors[1]", "does not know"},
		{`{"lists":{"seqs":["1",2,x]}}`, "lists.seqs[2]", "whole number"},
		{`{"lists":{"kinds":[{},{"seq":true}]}}`, "lists.kinds[1].seq", "whole number"},
		{`{"lists":{"texts":["a" "b"]}}`, "lists.texts[0]", "not valid JSON"},
		{`{"maps":{"kinds":{"a":{"seq":[]}}}}`, "maps.kinds.seq", "whole number"},
		{`{"maps":{"flags":{"a":true,"a":true}}}`, "maps.flags", "key twice"},
		{`{"maps":{"flags":{"a":null}}}`, "maps.flags", "true or false"},
		{`{"maps":{"flags":[]}}`, "maps.flags", "must be an object"},
		{`{"text":"","blob":""}`, "blob", "second choice"},
		{`{"text":"","text":""}`, "text", "given twice"},
		{`{"text":null,"text":""}`, "text", "given twice"},
		{`{"left":"","right":""}`, "right", "second choice"},
		{`{"empty":{"x":1}}`, "empty", "does not know"},
		{`{"tree":` + deep, "tree" + strings.Repeat(".one", 15), "nested too deep"},
	} {
		for range 2 {
			_, err := readTest([]byte(c.data), true)
			require.NotNil(t, err, c.data)
			require.Equal(t, c.field, err.Field, c.data)
			require.Contains(t, err.Message, c.message, c.data)
		}
	}
	got, err := readTest([]byte(`{"text":null,"blob":"-_8","kinds":null,"left":"","beside":"b"}`), true)
	require.Nil(t, err)
	require.Equal(t, []byte{0xfb, 0xff}, got.GetBlob())
}

func TestLenientDecodingPassesOverWhatIsNew(t *testing.T) {
	got, err := readTest([]byte(`{"new":{"x":[1]},"lists":{"colors":["COLOR_RED","COLOR_BLUE",7]},"left":"l"}`), false)
	require.Nil(t, err)
	require.Equal(t, []frametest.Color{frametest.Color_COLOR_RED, 7}, got.GetLists().GetColors())
	require.Equal(t, "l", got.GetLeft())
	got, err = readTest([]byte(`{"color":"COLOR_BLUE","maps":null}`), false)
	require.Nil(t, err)
	require.Nil(t, got.GetChoice())
	got, err = readTest([]byte(`{"maps":{"colors":{"a":"COLOR_BLUE","b":-1,"c":99}}}`), false)
	require.Nil(t, err)
	require.Equal(t, map[string]frametest.Color{"b": frametest.Color_COLOR_INFRARED, "c": 99}, got.GetMaps().GetColors())
	_, err = readTest([]byte(`{"left":"","right":""}`), false)
	require.Equal(t, "right", err.Field)
}

// message returns the wire form of a field that contains fields.
func message(number protowire.Number, fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(fields, nil))
}

func varint(number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
}

func TestGeneratedCheckRefusesByField(t *testing.T) {
	deep := message(1)
	for range 20 {
		deep = message(1, deep)
	}
	text := func(number protowire.Number) []byte { return message(number, []byte("x")) }
	for name, c := range map[string]struct {
		data           []byte
		field, message string
	}{
		"int32 too large":         {message(2, varint(4, math.MaxInt32+1)), "kinds.small", "32 bits"},
		"int32 too small":         {message(2, varint(4, uint64(1<<64+math.MinInt32-1))), "kinds.small", "32 bits"},
		"int32 cut":               {message(2, varint(4, 1<<32)), "kinds.small", "32 bits"},
		"uint32 too large":        {message(2, varint(6, math.MaxUint32+1)), "kinds.count", "at most 4294967295"},
		"unknown enum":            {message(2, varint(8, 5)), "kinds.color", "does not know"},
		"enum cut":                {message(2, varint(8, 1<<32+1)), "kinds.color", "does not know"},
		"packed enum":             {message(4, message(8, []byte{1, 5})), "lists.colors[1]", "does not know"},
		"packed cut off":          {message(4, message(7, []byte{1, 0x80})), "lists.seqs[1]", "not a protobuf"},
		"packed bool":             {message(4, message(3, []byte{1, 0, 2})), "lists.flags[2]", "wrong type"},
		"place after packed":      {message(4, message(8, []byte{1, 1, 1}), varint(8, 5)), "lists.colors[3]", "does not know"},
		"list of fixed":           {message(4, protowire.AppendFixed32(protowire.AppendTag(nil, 7, protowire.Fixed32Type), 1)), "lists.seqs[0]", "wrong type"},
		"number for bytes":        {message(2, varint(2, 1)), "kinds.blob", "wrong type"},
		"group":                   {message(2, []byte{0x0b, 0x0c}), "kinds.text", "wrong type"},
		"optional twice":          {message(3, text(1), text(1)), "optionals.text", "given twice"},
		"scalar choice twice":     {append(text(8), text(8)...), "text", "given twice"},
		"two choices":             {append(text(8), varint(14, 1)...), "seq", "second choice"},
		"two choices, other":      {append(text(1001), text(1002)...), "right", "second choice"},
		"map key twice":           {message(5, message(7, text(1), varint(2, 1)), message(7, text(1))), "maps.seqs", "key twice"},
		"map key twice, left out": {message(5, message(7, varint(2, 1)), message(7)), "maps.seqs", "key twice"},
		"map value":               {message(5, message(6, varint(2, 1<<40))), "maps.counts.value", "at most 4294967295"},
		"map key no UTF-8":        {message(5, message(6, message(1, []byte{0xff}))), "maps.counts.key", "UTF-8"},
		"map of messages":         {message(5, message(9, message(2, varint(6, 1<<40)))), "maps.kinds.value.count", "at most 4294967295"},
		"empty with a field":      {message(7, varint(1, 1)), "empty", "does not know"},
		"empty with garbage":      {message(7, []byte{0xff}), "empty", "not a protobuf"},
		"number above 64":         {varint(1000, 1), "beside", "wrong type"},
		"too deep":                {message(6, deep), "tree" + strings.Repeat(".one", 15), "nested too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkTest(c.data)
			require.NotNil(t, err)
			require.Equal(t, c.field, err.Field)
			require.Contains(t, err.Message, c.message)
		})
	}
	require.Nil(t, checkTest(bytes.Join([][]byte{
		varint(1, 7), text(1000), text(1001),
		message(4, varint(7, 1), message(7, []byte{1, 2}), message(7), varint(10, 3), message(10, []byte{4})),
	}, nil)), "lists may be packed or not, and empty")
}

// The official libraries must accept every message that the generated code accepts, with the same result.
func FuzzGenerated(f *testing.F) {
	f.Add(true, []byte(`{"id":1,"kinds":{"text":"a","blob":"-_8","color":-1,"renamed":"x"},"left":"l","beside":"b"}`))
	f.Add(true, []byte(`{"lists":{"texts":[""],"smalls":[-1],"larges":["-1",0],"colors":["COLOR_RED"],"kinds":[{}],"unpacked":[1]}}`))
	f.Add(true, []byte(`{"maps":{"texts":{"a":"b"},"blobs":{"":"AA=="},"colors":{"c":"COLOR_INFRARED"},"kinds":{"k":{"seq":"1"}}}}`))
	f.Add(true, []byte(`{"tree":{"one":{"many":[{},{"named":{"a":{}}}]}},"optionals":null}`))
	f.Add(false, bytes.Join([][]byte{varint(1, 7), message(1000), message(4, varint(7, 1), message(7, []byte{1, 2}))}, nil))
	f.Add(false, message(5, message(7, message(1), varint(2, 1)), message(9, message(2, varint(6, 1)))))
	f.Fuzz(func(t *testing.T, isJSON bool, data []byte) {
		want := &frametest.Frame{}
		if !isJSON {
			if checkTest(data) == nil {
				require.NoError(t, proto.Unmarshal(data, want))
				requireNoUnknown(t, want)
				got := &frametest.Frame{}
				require.NoError(t, got.UnmarshalVT(data))
				require.True(t, proto.Equal(want, got))
			}
			return
		}
		for _, strict := range []bool{true, false} {
			got, err := readTest(data, strict)
			if err != nil {
				continue
			}
			if strict {
				require.NoError(t, protojson.Unmarshal(data, want))
				require.True(t, proto.Equal(want, got), "want %v\ngot %v", want, got)
			}
			again, err := readTest(appendFrameJSON(nil, got), strict)
			require.Nil(t, err)
			require.True(t, proto.Equal(got, again))
		}
	})
}

func requireNoUnknown(t *testing.T, m *frametest.Frame) {
	t.Helper()
	known := proto.CloneOf(m)
	require.NoError(t, proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(must(proto.Marshal(m)), known))
	require.Equal(t, proto.Size(known), proto.Size(m))
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}
