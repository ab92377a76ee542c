package deploytest

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// checkEnvironment checks that a program knows each of its environment variables, and accepts their values.
func checkEnvironment(in *inspection) {
	for _, w := range in.Workloads {
		names := map[string]bool{}
		for _, env := range w.Container().Env {
			if names[env.Name] {
				in.failf("%s sets %s twice", w.Name, env.Name)
			}
			names[env.Name] = true
		}
		for name := range names {
			if names[name+"_FILE"] {
				in.failf("%s sets %s, and a file for it too", w.Name, name)
			}
		}
	}
	for _, w := range in.services() {
		program := in.Programs[w.Program()]
		for _, env := range w.Container().Env {
			if strings.HasPrefix(env.Name, "RUNNEL_") && !program.Variables[env.Name] {
				in.failf("%s sets %s, which %s does not know", w.Name, env.Name, w.Program())
			}
		}
		environment, err := w.Environment(in.Scratch(), in.Secrets)
		if err != nil {
			in.failf("%s: %w", w.Name, err)
		}
		settings, err := program.Settings(environment)
		if err != nil {
			in.failf("%s %w", w.Program(), err)
			continue
		}
		if other := in.settings(in.services()[0])["nats.partitions"]; settings["nats.partitions"] != other {
			in.failf("%s has %s partitions, others %s", w.Name, settings["nats.partitions"], other)
		}
		if links := w.Pod.Spec.EnableServiceLinks; links == nil || *links {
			in.failf("%s would get variables for each Service, and RUNNEL_… names are the settings' own", w.Name)
		}
	}
}

// checkFiles checks that each variable with a file name refers to a file in a mounted Secret, and that every volume is
// used.
func checkFiles(in *inspection) {
	for _, w := range in.Workloads {
		files, err := w.files(in.Secrets)
		if err != nil {
			in.failf("%s: %w", w.Name, err)
		}
		for _, env := range w.Container().Env {
			if _, there := files[env.Value]; strings.HasPrefix(env.Value, "/") && !there {
				in.failf("%s sets %s to %s, and mounts no such file", w.Name, env.Name, env.Value)
			}
		}
		volumes := map[string]bool{}
		for _, volume := range w.Pod.Spec.Volumes {
			volumes[volume.Name] = true
		}
		for _, claim := range w.Claims {
			volumes[claim.Name] = true
		}
		var mounts []corev1.VolumeMount
		for _, container := range slices.Concat(w.Pod.Spec.InitContainers, w.Pod.Spec.Containers) {
			mounts = append(mounts, container.VolumeMounts...)
		}
		mounted := map[string]bool{}
		for _, mount := range mounts {
			mounted[mount.Name] = true
			if !volumes[mount.Name] {
				in.failf("%s mounts %s, which is no volume of it", w.Name, mount.Name)
			}
			if mount.SubPath != "" {
				in.failf("%s mounts a part of %s: renewed Secrets would not arrive", w.Name, mount.Name)
			}
		}
		for volume := range volumes {
			if mounted[volume] {
				continue
			}
			in.failf("%s does not mount its volume %s", w.Name, volume)
		}
	}
}

var (
	secretName      = regexp.MustCompile(`SECRET|TOKEN|PASSWORD|SEED|DATABASE`)
	passwordInValue = regexp.MustCompile(`://[^/\s]*:[^/\s]*@`)
)

// checkSecrets checks that manifests contain no secrets, and that a pod mounts no Secret of another component.
func checkSecrets(in *inspection) {
	for _, w := range in.Workloads {
		container := w.Container()
		for _, env := range container.Env {
			if secretName.MatchString(env.Name) && !strings.HasSuffix(env.Name, "_FILE") && env.Value != "" || passwordInValue.MatchString(env.Value) {
				in.failf("%s writes the secret %s down", w.Name, env.Name)
			}
		}
		for _, argument := range slices.Concat(container.Command, container.Args) {
			if passwordInValue.MatchString(argument) {
				in.failf("%s has a secret in its arguments", w.Name)
			}
		}
		for _, volume := range w.Pod.Spec.Volumes {
			in.checkSecretVolume(w, volume)
		}
	}
}

func (in *inspection) checkSecretVolume(w *Workload, volume corev1.Volume) {
	if volume.Secret == nil {
		return
	}
	if mode := volume.Secret.DefaultMode; mode == nil || *mode&0o7 != 0 {
		in.failf("everybody in the pod of %s may read the volume %s", w.Name, volume.Name)
	}
	for _, other := range in.Workloads {
		for _, theirs := range other.Pod.Spec.Volumes {
			if other == w || theirs.Secret == nil || theirs.Secret.SecretName != volume.Secret.SecretName {
				continue
			}
			if mine, yours := keys(volume), keys(theirs); mine == nil && yours == nil || slices.ContainsFunc(mine, private) && slices.ContainsFunc(yours, private) {
				in.failf("%s and %s share the Secret %s", w.Name, other.Name, volume.Secret.SecretName)
			}
		}
	}
}

// keys returns the keys that a volume contains; nil means all keys.
func keys(volume corev1.Volume) []string {
	var shown []string
	for _, item := range volume.Secret.Items {
		shown = append(shown, item.Key)
	}
	return shown
}

// private reports whether a key belongs to one component only. The operators' token, in contrast, is shared by all
// services.
func private(key string) bool { return path.Ext(key) == ".key" || key == "seed" }
