package peer;

import org.eclipse.edc.connector.controlplane.contract.spi.policy.ContractNegotiationPolicyContext;
import org.eclipse.edc.policy.engine.spi.PolicyEngine;
import org.eclipse.edc.policy.engine.spi.RuleBindingRegistry;
import org.eclipse.edc.policy.model.Permission;
import org.eclipse.edc.runtime.metamodel.annotation.Extension;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

/** One left operand, so that an EDC provider can be made to refuse: who the consumer must be. */
@Extension("Peer policy")
public class PolicyExtension implements ServiceExtension {
    private static final String PARTY = "https://peer.example/ns/party";

    @Inject private PolicyEngine engine;
    @Inject private RuleBindingRegistry bindings;

    @Override
    public void initialize(ServiceExtensionContext context) {
        bindings.bind("use", ContractNegotiationPolicyContext.NEGOTIATION_SCOPE);
        bindings.bind("http://www.w3.org/ns/odrl/2/use", ContractNegotiationPolicyContext.NEGOTIATION_SCOPE);
        bindings.bind(PARTY, ContractNegotiationPolicyContext.NEGOTIATION_SCOPE);
        engine.registerFunction(ContractNegotiationPolicyContext.class, Permission.class, PARTY,
                (operator, right, rule, negotiation) -> negotiation.participantAgent().getIdentity().equals(String.valueOf(right)));
    }
}
