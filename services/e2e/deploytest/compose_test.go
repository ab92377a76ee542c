package deploytest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testCompose checks the compose file, which cannot be run here: the test machines have no container engine.
func testCompose(t *testing.T, facts Facts) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "compose.yaml"))
	require.NoError(t, err)
	inspect := func(text string) error {
		compose, err := DecodeCompose([]byte(text))
		if err != nil {
			return err
		}
		return errors.Join(InspectCompose(compose, facts)...)
	}
	require.NoError(t, inspect(string(text)))
	for finding, edit := range map[string][2]string{
		"field healthchecks not found":                        {"    healthcheck:\n      test: [CMD, wget", "    healthchecks:\n      test: [CMD, wget"},
		"already defined":                                     {"  POSTGRES_DB: runnel", "  POSTGRES_DB: runnel\n      POSTGRES_DB: runnel"},
		"gateway sets RUNNEL_GATEWAY_LISTENS":                 {"RUNNEL_GATEWAY_LISTEN:", "RUNNEL_GATEWAY_LISTENS:"},
		"history sets RUNNEL_HISTORY_ADDRESS, which":          {"RUNNEL_CONFIG: /run/secrets/history", "RUNNEL_HISTORY_ADDRESS: history:9000"},
		`delivery builds "runnel-deliver"`:                    {"PROGRAM: runnel-delivery", "PROGRAM: runnel-deliver"},
		"history refuses its settings":                        {`RUNNEL_RPC_PLAINTEXT: "true"`, `RUNNEL_RPC_PLAINTEXT: "certainly"`},
		"reads the secret auth, which it does not get":        {"secrets: [auth, admin]", "secrets: [admin]"},
		"history-address of delivery: nobody listens":         {"dns:///history:9000", "dns:///history:9001"},
		"nats.url of delivery: nobody listens at broker:4222": {"nats://nats:4222", "nats://broker:4222"},
		"nats.url of delivery: nobody listens at nats:4222":   {`listen: "0.0.0.0:4222"`, `listen: "0.0.0.0:4223"`},
		"publishes 8080:8080, which is open to others":        {"127.0.0.1:8080:8080", "8080:8080"},
		"publishes 127.0.0.1:9091:9091, which":                {"127.0.0.1:9091:9090", "127.0.0.1:9091:9091"},
		"waits for nats, which never becomes healthy":         {"nats: {condition: service_healthy}", "nats: {condition: service_started}"},
		"asks /ready for its health, which answers 401":       {":9090/readyz", ":9090/ready"},
		"asks for its health on port 9091":                    {":9090/readyz", ":9091/readyz"},
		"can write to its root file system":                   {"read_only: true", "read_only: false"},
		"keeps capabilities":                                  {"cap_drop: [ALL]", "cap_drop: []"},
		`gateway is killed after "20s", and drains for 10s`:   {"stop_grace_period: 25s", "stop_grace_period: 20s"},
		"keeps nothing safe":                                  {"sync_interval: always", "sync_interval: 2m"},
		"nats-server refuses its configuration":               {"strict: true", "strikt: true"},
		"mounts the volume nats, which is not there":          {"volumes:\n  postgres:\n  nats:", "volumes:\n  postgres:"},
		"wants the secret auth, which is not there":           {"  auth: {file: ./secrets/auth}", ""},
		"history.database of history: nobody listens":         {"  postgres:\n    image: ", "  database:\n    image: "},
	} {
		t.Run(finding, func(t *testing.T) {
			require.Contains(t, string(text), edit[0])
			require.ErrorContains(t, inspect(strings.Replace(string(text), edit[0], edit[1], 1)), finding)
		})
	}
}
