package conversation

import "github.com/runnelhq/runnel/pkg/ids"

// ServerUser is the sender of commands that internal services send in their own name. It is not a valid user id, so no
// token can have it as its user.
const ServerUser ids.User = "@server"

// Role is the role of a command's sender in a conversation.
type Role uint8

const (
	// RoleNone is a user who is not a member.
	RoleNone Role = 1 << iota
	// RoleMember is a member.
	RoleMember
	// RoleOwner is the member who owns the conversation.
	RoleOwner
	// RoleServer is ServerUser.
	RoleServer
)

// Roles is a set of roles.
type Roles uint8

const (
	// AnyUser is every authenticated user.
	AnyUser = Roles(RoleNone | RoleMember | RoleOwner)
	// Members are all members.
	Members = Roles(RoleMember | RoleOwner)
	// Owners are owners only.
	Owners = Roles(RoleOwner)
	// Server is internal services only.
	Server = Roles(RoleServer)
)

// Has reports whether a role is in the set.
func (r Roles) Has(role Role) bool { return r&Roles(role) != 0 }

// Names lists the names of the roles.
func (r Roles) Names() []string {
	var names []string
	for _, role := range []struct {
		role Role
		name string
	}{{RoleOwner, "owner"}, {RoleMember, "member"}, {RoleNone, "not a member"}, {RoleServer, "server"}} {
		if r.Has(role.role) {
			names = append(names, role.name)
		}
	}
	return names
}

// roleOf returns the role of a sender in a conversation.
func (s *State) roleOf(sender ids.User) Role {
	if sender == ServerUser {
		return RoleServer
	}
	if _, member := s.Members[sender]; !member {
		return RoleNone
	}
	if sender == s.Owner() {
		return RoleOwner
	}
	return RoleMember
}
