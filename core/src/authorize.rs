//! Who may do what: one pure function.

use crate::actor::{Actor, Principal};
use crate::function::FunctionId;
use crate::name::Namespace;

/// What somebody wants to do. Each route and each use-case needs exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See functions, their versions and triggers.
    ReadFunctions,
    /// Deploy, publish and delete functions, and upload their packages.
    ManageFunctions,
    /// Invoke functions, synchronously or by a queue.
    Invoke,
    /// See the states and results of invocations.
    ReadInvocations,
    /// Cancel invocations and run them again.
    ManageInvocations,
    /// Switch triggers on and off, and fire them.
    ManageTriggers,
    /// Read the output of functions.
    ReadLogs,
    /// See the statistics of queues and of the server.
    ReadServer,
}

/// What an actor wants to use a permission on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionTarget<'a> {
    /// Some target, not known yet: permits what is permitted for at least one target.
    Any,
    /// The server, or all namespaces together.
    Server,
    /// One namespace with all its functions.
    Namespace(&'a Namespace),
    /// One function of a namespace.
    Function(&'a FunctionId),
    /// An invocation that exists.
    Invocation {
        /// The function that it runs.
        function: &'a FunctionId,
        /// The function that asked for it, if one did.
        called_by: Option<&'a FunctionId>,
    },
}

/// The actor may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{principal} may not {action}")]
pub struct ForbiddenError {
    principal: Principal,
    action: &'static str,
}

/// Decides whether the actor may do this to the target.
///
/// The owner of the server may do everything. A trigger may start functions. A function may start
/// the functions of its own namespace, and see the invocations that it has started.
///
/// # Errors
/// The actor may not.
pub fn authorize(
    actor: &Actor,
    permission: Permission,
    target: PermissionTarget<'_>,
) -> Result<(), ForbiddenError> {
    let permitted = match &actor.principal {
        Principal::Root => true,
        Principal::Platform => permission == Permission::Invoke,
        Principal::Function(function) => permits_function(function, permission, target),
    };
    if permitted {
        return Ok(());
    }
    Err(ForbiddenError { principal: actor.principal.clone(), action: permission.action() })
}

fn permits_function(
    own: &FunctionId,
    permission: Permission,
    target: PermissionTarget<'_>,
) -> bool {
    match (permission, target) {
        (Permission::Invoke | Permission::ReadInvocations, PermissionTarget::Any) => true,
        (Permission::Invoke, PermissionTarget::Function(function)) => {
            function.namespace == own.namespace
        }
        (Permission::ReadInvocations, PermissionTarget::Invocation { called_by, .. }) => {
            called_by == Some(own)
        }
        (
            Permission::ReadFunctions
            | Permission::ManageFunctions
            | Permission::Invoke
            | Permission::ReadInvocations
            | Permission::ManageInvocations
            | Permission::ManageTriggers
            | Permission::ReadLogs
            | Permission::ReadServer,
            PermissionTarget::Any
            | PermissionTarget::Server
            | PermissionTarget::Namespace(_)
            | PermissionTarget::Function(_)
            | PermissionTarget::Invocation { .. },
        ) => false,
    }
}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Self; 8] = [
        Self::ReadFunctions,
        Self::ManageFunctions,
        Self::Invoke,
        Self::ReadInvocations,
        Self::ManageInvocations,
        Self::ManageTriggers,
        Self::ReadLogs,
        Self::ReadServer,
    ];

    /// What it permits, for people: continues "you may …".
    pub fn action(self) -> &'static str {
        match self {
            Self::ReadFunctions => "see functions",
            Self::ManageFunctions => "deploy, publish or delete functions",
            Self::Invoke => "invoke this function",
            Self::ReadInvocations => "see this invocation",
            Self::ManageInvocations => "cancel invocations or run them again",
            Self::ManageTriggers => "switch or fire triggers",
            Self::ReadLogs => "read logs",
            Self::ReadServer => "see the figures of the server",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::FunctionCaller;
    use crate::id::RequestId;

    fn id(text: &str) -> FunctionId {
        let (namespace, name) = text.split_once('/').unwrap();
        FunctionId { namespace: namespace.parse().unwrap(), name: name.parse().unwrap() }
    }

    fn function_actor(text: &str) -> Actor {
        let request_id = RequestId::new();
        Actor::function(FunctionCaller { function: id(text), request_id, depth: 0 })
    }

    fn any_function() -> impl Strategy<Value = FunctionId> {
        prop::sample::select(vec![id("a/one"), id("a/two"), id("b/one"), id("b/two")])
    }

    /// Where the question is whether somebody may do something to a function, by each kind of target.
    fn targets<'a>(
        function: &'a FunctionId,
        called_by: Option<&'a FunctionId>,
    ) -> [PermissionTarget<'a>; 4] {
        [
            PermissionTarget::Server,
            PermissionTarget::Namespace(&function.namespace),
            PermissionTarget::Function(function),
            PermissionTarget::Invocation { function, called_by },
        ]
    }

    proptest! {
        #[test]
        fn a_function_starts_its_neighbours_and_sees_what_it_started_and_nothing_else(
            own in any_function(),
            other in any_function(),
            called_by in prop::option::of(any_function()),
            permission in prop::sample::select(Permission::ALL.to_vec()),
        ) {
            let request_id = RequestId::new();
            let actor = Actor::function(FunctionCaller { function: own.clone(), request_id, depth: 3 });
            for target in targets(&other, called_by.as_ref()) {
                let expected = match target {
                    PermissionTarget::Function(_) => {
                        permission == Permission::Invoke && own.namespace == other.namespace
                    }
                    PermissionTarget::Invocation { .. } => {
                        permission == Permission::ReadInvocations && called_by.as_ref() == Some(&own)
                    }
                    _ => false,
                };
                prop_assert_eq!(authorize(&actor, permission, target).is_ok(), expected);
                if expected {
                    // What is permitted somewhere is not refused before the target is known.
                    prop_assert!(authorize(&actor, permission, PermissionTarget::Any).is_ok());
                }
            }
        }

        #[test]
        fn the_owner_may_do_everything_and_a_trigger_only_starts_functions(
            other in any_function(),
            permission in prop::sample::select(Permission::ALL.to_vec()),
        ) {
            for target in targets(&other, None) {
                prop_assert!(authorize(&Actor::process(), permission, target).is_ok());
                let started = authorize(&Actor::trigger(None), permission, target).is_ok();
                prop_assert_eq!(started, permission == Permission::Invoke);
            }
        }
    }

    #[test]
    fn a_refusal_says_who_may_not_do_what() {
        let target = PermissionTarget::Server;
        let refused = authorize(&function_actor("a/one"), Permission::ManageFunctions, target);
        let text = "function a/one may not deploy, publish or delete functions";
        assert_eq!(refused.unwrap_err().to_string(), text);
    }
}
