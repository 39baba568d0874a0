"""Names that the small recogniser should not have to guess: a short gazetteer, looked up before it is believed.

Common given names, countries, larger cities, airports, companies and products; facts of general knowledge, written down
here, no data set's. A name that is also an everyday word is left out, or stands in `ONLY_BEFORE_A_SURNAME`. Keys are
case folded, their words joined by one blank; what counts as the name's spelling is `spelled_like_a_name`'s to say.
"""

from __future__ import annotations

GIVEN_NAMES = frozenset(
    """
    aaliyah aarav aaron abby abdul abdullah abigail adam adele adrian adriana agnes ahmad ahmed aiden aisha akira alan
    albert alberto alec alejandra alejandro alessandro alex alexa alexander alexandra alexandre alexei alexis alfie
    alfred ali alice alicia alina alison allison alyssa amanda amber amelia amina amir amit amy ana anastasia anders
    andre andrea andreas andres andrew andy angela angelina angie anil anika anita anja ann anna anne annie anthony
    antoine anton antonio anya arjun armando arthur asha ashley ashton astrid aubrey audrey august aurora austin ava
    avery axel ayesha barack barbara barry beatrice becky ben benedict benjamin bernard bernie beth bethany betty
    beverly beyonce bhavna bianca bill billy björn bob bobby boris brad bradley brandon brenda brendan brent brett
    brian bridget britney brittany bruce bruno bryan caitlin caleb calvin cameron camila camille carl carla carlos
    carmen carol carolina caroline carrie casey cassandra catherine cathy cecilia cedric chad chandler charles charlie
    charlotte chelsea chen cheryl chiara chloe chris christian christina christine christopher cindy claire clara
    clarissa claude claudia clive colin connor conor constance corey cory courtney craig cristiano cristina cynthia
    daiki daisy dale damian damien dan daniel daniela danielle danny daphne darius darren dave david dean deborah
    debra deepak denis denise dennis derek dermot devin diana diane diego dimitri dinesh dmitri dmitry dominic don
    donald donna doris dorothy doug douglas dustin dylan eddie edgar edith eduardo edward edwin eileen elaine eleanor
    elena eli elias elijah elisa elizabeth ella ellen ellie elliot elliott elsa emily emma emmanuel emre enrique eric
    erica erik erika erin ernest esther ethan eugene eva evan evelyn ewan fabian fabio faith farah fatima felicia
    felipe felix fernando finn fiona florence francesca francesco francis francisco frank franz fred freddie frederick
    freya gabriel gabriela gabrielle gareth gary gavin geoff geoffrey george georgia gerald gerard gianluca gina
    giorgio giovanni giulia giuseppe gloria gordon graham greg gregory greta guillaume gustav gustavo guy hana hank
    hannah hans harold harper harriet harris harrison harry harvey hassan heather hector heidi helen helena henrik
    henry herbert herman hillary hiroshi holly howard hugh hugo hussein ian ibrahim igor ines ingrid irene iris irina
    isaac isabel isabella isaiah ivan ivy jack jackie jackson jacob jacqueline jade jaden jake jamal james jamie jan
    jane janet janice jared jasmine jason javier jay jayden jean jeff jeffrey jenna jennifer jenny jeremy jerome jerry
    jesse jessica jill jim jimmy jing joan joanna joanne joaquin joe joel joey johan johanna johannes john johnny jon
    jonah jonas jonathan jordan jorge jose joseph josh joshua joyce juan juanita judith judy julia julian juliana
    julie juliet julio june justin kaito kaitlyn karen karim karina karl karolina kate katherine kathleen kathryn
    kathy katie katrina katy kayla keira keith kelly kelsey kelvin ken kendall kendra kenneth kenny kenji kerry kevin
    khalid khloe kieran kim kimberly kirsten kobe krishna kristen kristin kristina kurt kyle kylie lakshmi lana lara
    larry laura lauren laurence lawrence leah lebron lee leila lena leo leon leonard leonardo leonor leslie lewis li
    liam lily lin linda lindsay lindsey ling lionel lisa liu logan lois lola lorenzo lorraine louis louisa louise luca
    lucas lucia luciana lucy luis luisa luka lukas luke lydia lynn mackenzie madeleine madeline madison maggie magnus
    malcolm malik manuel marc marcel marco marcos marcus margaret margot maria mariah mariam marie marilyn marina
    mario marion marissa marjorie marko marlene marta martha martin martina marvin mary mateo mathew mathias matt
    matteo matthew maurice mauricio max maya meera megan mei melanie melissa mercedes meredith mia michael michaela
    michel michele michelle miguel mike mikhail mila mildred miles miley milo minh miranda miriam mitchell mohamed
    mohammed mohammad molly mona monica monique morgan moritz moses muhammad myra nadia nadine nancy naomi natalia
    natalie natasha nathan nathaniel neha neil nelson nia nicholas nick nicki nicola nicolas nicole nigel nikita
    nikolai nils nina noah noel nora norma norman olga oliver olivia olga omar oscar oskar owen pablo paige pamela
    paolo pascal patricia patrick paul paula pauline pavel pedro peggy penelope perry peter petra phil philip philippe
    phillip phoebe phyllis pierre piotr polly priya quentin rachel rafael rahul raj rajesh ralph ramon randy raphael
    raquel rashid raul ravi raymond rebecca reggie regina renata rene rhys ricardo richard rick ricky rihanna rita rob
    robbie robert roberta roberto robin rodney rodrigo roger roland roman romeo ronald ronnie rosa rosalie rosie ross
    rowan roxanne ruben rudolf russell ruth ryan sabrina sadie sahil salma sam samantha samir samuel sandeep sandra
    sandy sanjay santiago sara sarah sasha saul savannah scarlett scott sean sebastian selena serena serge sergei
    sergio seth shane shannon sharon shaun shawn sheila shelby sheldon shelly sherry shirley sid sidney sierra silvia
    simon simone sofia sonia sophia sophie spencer stacey stacy stan stanley stefan stella stephanie stephen steve
    steven stuart sue sunil susan suzanne sven sydney sylvia tamara tania tanya tara taylor ted teresa terry tess theo
    theodore theresa thomas tiffany tim timothy tina toby todd tom tomas tommy toni tony tracy travis trevor tristan
    troy tyler ulrich ursula valentina valerie vanessa vera veronica vicky victor victoria vijay vikram vincent
    virginia vivian vladimir wade walter wanda warren wayne wei wendy werner wesley whitney wilhelm william willie
    wilson winston wolfgang xavier xin yara yasmin yolanda yosef yuki yuri yusuf yuto yvette yvonne zach zachary zara
    zayn zoe zoey""".split()
)

# Everyday words and surnames' companions: a person only when a capitalised surname follows.
ONLY_BEFORE_A_SURNAME = frozenset(
    """
    april art august austin bill bob carol charity chase chuck dale dawn dean don drew faith frank grace guy harper
    hope iris ivy jack jade jay jean jordan joy june kim lane lee li lily lin mark max may miles pat penny ray rich
    rob robin rose ruby sandy sue summer sunny sydney ted victoria virginia wade will wilson chelsea florence georgia
    kelly logan madison mercedes morgan nelson paris perry pierre roman ross savannah scott sierra trinity troy tyler
    warren chen liu wei harris harrison jackson herman harvey lewis lawrence mitchell ali guy shelby chandler carl
    christian ana alexa oscar romeo""".split()
)

COUNTRIES = frozenset(
    name.strip()
    for name in """
    afghanistan, albania, algeria, andorra, angola, argentina, armenia, australia, austria, azerbaijan, bahamas,
    bahrain, bangladesh, barbados, belarus, belgium, belize, benin, bhutan, bolivia, bosnia, botswana, brazil, brunei,
    bulgaria, burma, burundi, cambodia, cameroon, canada, chile, china, colombia, congo, costa rica, croatia, cuba,
    cyprus, czech republic, denmark, djibouti, dominican republic, ecuador, egypt, el salvador, england, eritrea,
    estonia, ethiopia, fiji, finland, france, gabon, gambia, germany, ghana, great britain, greece, greenland,
    guatemala, guinea, guyana, haiti, honduras, hong kong, hungary, iceland, india, indonesia, iran, iraq, ireland,
    israel, italy, ivory coast, jamaica, japan, kazakhstan, kenya, kosovo, kuwait, kyrgyzstan, laos, latvia, lebanon,
    liberia, libya, liechtenstein, lithuania, luxembourg, macedonia, madagascar, malawi, malaysia, maldives, mali,
    malta, mauritius, mexico, moldova, monaco, mongolia, montenegro, morocco, mozambique, myanmar, namibia, nepal,
    netherlands, new zealand, nicaragua, niger, nigeria, north korea, northern ireland, norway, oman, pakistan,
    palestine, panama, paraguay, peru, philippines, poland, portugal, puerto rico, qatar, romania, russia, rwanda,
    saudi arabia, scotland, senegal, serbia, singapore, slovakia, slovenia, somalia, south africa, south korea, spain,
    sri lanka, sudan, suriname, sweden, switzerland, syria, taiwan, tajikistan, tanzania, thailand, tibet, togo,
    trinidad, tunisia, turkey, turkmenistan, uganda, ukraine, united arab emirates, united kingdom, united states,
    united states of america, uruguay, uzbekistan, venezuela, vietnam, wales, yemen, zambia, zimbabwe, usa, u.s.a.,
    u.s., uk, u.k., uae, africa, asia, europe, antarctica, north america, south america, latin america, middle east,
    america""".split(",")
)

CITIES_AND_REGIONS = frozenset(
    name.strip()
    for name in """
    abu dhabi, accra, addis ababa, adelaide, alabama, alaska, albany, alberta, albuquerque, alexandria, algiers,
    amsterdam, anchorage, ankara, antwerp, arizona, arkansas, athens, atlanta, auckland, austin, baghdad, bali,
    baltimore, bangalore, bangkok, barcelona, basel, bavaria, beijing, beirut, belfast, belgrade, bengaluru, berlin,
    bern, birmingham, bogota, bologna, bombay, bordeaux, boston, brasilia, bratislava, bremen, brisbane, bristol,
    british columbia, bronx, brooklyn, brussels, bucharest, budapest, buenos aires, buffalo, cairo, calgary,
    california, cambridge, canberra, cape town, caracas, cardiff, casablanca, catalonia, charlotte, chennai, chicago,
    cincinnati, cleveland, cologne, colombo, colorado, columbus, connecticut, copenhagen, cornwall, dakar, dallas,
    damascus, delaware, delhi, denver, detroit, devon, dhaka, doha, dortmund, dresden, dubai, dublin, durban,
    dusseldorf, edinburgh, edmonton, el paso, essex, florence, florida, fort worth, frankfurt, gaza, geneva, genoa,
    georgia, glasgow, guadalajara, hague, hamburg, hanoi, harlem, havana, hawaii, helsinki, hiroshima, ho chi minh
    city, hollywood, honolulu, houston, hyderabad, ibiza, idaho, illinois, indiana, indianapolis, iowa, istanbul,
    jacksonville, jakarta, jerusalem, johannesburg, kabul, kansas, kansas city, karachi, kathmandu, kent, kentucky,
    kerala, kiev, kolkata, krakow, kuala lumpur, kyiv, kyoto, lagos, lahore, las vegas, leeds, leipzig, lima, lisbon,
    liverpool, london, long beach, los angeles, louisiana, louisville, lyon, madrid, maine, malaga, manchester,
    manhattan, manila, manitoba, marrakech, marseille, maryland, massachusetts, mecca, melbourne, memphis, mexico
    city, miami, michigan, milan, milwaukee, minneapolis, minnesota, minsk, mississippi, missouri, montana, monterrey,
    montreal, moscow, mumbai, munich, nairobi, naples, nashville, nebraska, nevada, new brunswick, new delhi, new
    england, new hampshire, new haven, new jersey, new mexico, new orleans, new south wales, new york, new york city,
    newark, newcastle, north carolina, north dakota, nottingham, nova scotia, oakland, ohio, oklahoma, oklahoma city,
    omaha, ontario, oregon, orlando, osaka, oslo, ottawa, oxford, palo alto, paris, pasadena, pennsylvania, perth,
    philadelphia, phoenix, pittsburgh, porto, portland, prague, pretoria, pune, pyongyang, quebec, queensland,
    raleigh, redmond, reykjavik, rhode island, riga, rio de janeiro, riyadh, rome, rotterdam, sacramento, saint
    petersburg, salt lake city, salzburg, san antonio, san diego, san francisco, san jose, san juan, santa barbara,
    santa clara, santa monica, santiago, sao paulo, sarajevo, saskatchewan, scottsdale, seattle, seoul, seville,
    shanghai, sheffield, shenzhen, siberia, sicily, silicon valley, sofia, south carolina, south dakota, st. louis, st
    louis, stockholm, strasbourg, stuttgart, surrey, sussex, sydney, tacoma, taipei, tallinn, tampa, tasmania, tehran,
    tel aviv, tennessee, texas, tokyo, toronto, toulouse, tripoli, tucson, tulsa, tunis, turin, tuscany, utah,
    utrecht, valencia, vancouver, venice, vermont, vienna, vilnius, virginia, warsaw, washington, washington d.c.,
    washington dc, west virginia, wellington, winnipeg, wisconsin, wuhan, wyoming, yorkshire, zagreb, zurich, nyc, sf
    bay area, d.c., l.a.""".split(",")
)

# IATA codes of larger airports, but for those that read as a word, an acronym of software or a state (ADD, CAN, LED …).
AIRPORTS = frozenset(
    """
    ABQ ALB AMS ANC ATH ATL AUH AUS BCN BDL BEG BER BGO BHM BHX BKK BLR BNA BNE BOG BOI BOS BRU BUD BUF BUR BWI CDG
    CGK CHS CLE CLT CMH CPH CPT CTS CUN CVG DAL DCA DEL DEN DFW DME DOH DTW DUB DUS DXB EDI EWR EZE FCO FLL FRA FUK
    GDL GIG GLA GRU GVA HAM HEL HKG HND HNL HOU IAD IAH ICN IND ISB IST JAX JED JFK JNB KEF KIX KUL KWI LAS LAX LGA
    LGW LHR LIM LIS LYS MAA MAD MCI MCO MDW MEL MEX MIA MKE MNL MSP MSY MTY MUC MXP NCE NRT OAK OKC OMA ONT ORD ORF
    ORY OSL PBI PDX PEK PER PHL PHX PIT PMI PRG PVD PVG RDU RIC RNO RSW RUH SAN SAT SCL SDF SEA SFO SJC SJU SLC SMF
    SNA STL STN STR SVO SYD SZX TLV TPA TPE TUS TXL VCE VIE WAW YEG YOW YUL YVR YYC YYZ ZRH""".split()
)

ORGANISATIONS = frozenset(
    name.strip()
    for name in """
    adidas, adobe, aerospace corporation, airbnb, airbus, alibaba, amd, american airlines, american express,
    anthropic, arsenal fc, asus, at&t, atlassian, bank of america, barclays, bbc, best buy, bloomberg, bmw, boeing,
    bosch, british airways, cbs, cia, cisco, citibank, citigroup, cloudflare, cnn, coca-cola, comcast, costco,
    databricks, deepmind, delta air lines, deloitte, dhl, disney, dropbox, ebay, emirates, ericsson, espn, european
    union, exxon, facebook, fbi, fda, fedex, ferrari, fifa, ford motor company, foxconn, gartner, general electric,
    general motors, github, gitlab, goldman sachs, google, greenpeace, groupon, gucci, harvard, harvard university,
    hbo, hewlett-packard, hewlett packard, hitachi, home depot, honda, hsbc, huawei, hyundai, ibm, ikea, infosys,
    instagram, intel, jetblue, johnson & johnson, jpmorgan, jp morgan, kfc, kpmg, lego, lenovo, lg electronics,
    linkedin, lockheed martin, lufthansa, mastercard, mcdonald's, mcdonalds, mckinsey, mercedes-benz, microsoft, mit,
    morgan stanley, mozilla, msnbc, mtv, nasa, nato, nba, nbc, nestle, netflix, new york times, nfl, nhl, nike,
    nintendo, nissan, nokia, npr, nvidia, nypd, openai, palantir, panasonic, paypal, pepsi, pepsico, pfizer,
    pinterest, pixar, porsche, puma, pwc, qualcomm, reddit, reuters, ryanair, salesforce, samsung, sap, shopify,
    siemens, skype, slack technologies, snapchat, softbank, sony, southwest airlines, spacex, spotify, stanford,
    stanford university, starbucks, stripe, t-mobile, tencent, tesla, the guardian, tiktok, toshiba, toyota,
    tripadvisor, twitter, uber, ucla, ufc, unesco, unicef, united airlines, united nations, ups, verizon, victoria's
    secret, vodafone, volkswagen, volvo, wall street journal, walmart, warner bros, washington post, wells fargo,
    whatsapp, wikipedia, world bank, world health organization, wwe, xerox, xiaomi, yahoo, yelp, youtube, zara home,
    barcelona fc, real madrid, manchester united, manchester city, red sox, yankees, mets, lakers, dallas cowboys,
    miami heat, new york giants""".split(",")
)

PRODUCTS = frozenset(
    name.strip()
    for name in """
    airflow, android, ansible, apache kafka, cassandra db, chatgpt, chrome, claude code, clickhouse, cobol, copilot,
    csharp, debian, django, docker, elasticsearch, excel, fastapi, firefox, flask, galaxy s4, gmail, google maps,
    gpt-3, gpt-4, gpt-4o, grafana, graphql, hadoop, instagram app, internet explorer, ios, ipad, ipads, iphone,
    iphones, ipod, ipod touch, itunes, javascript, jenkins, jira, jupyter, kafka, kindle, kotlin, kubernetes,
    langchain, linux, macbook, macbook air, macbook pro, macos, mariadb, matplotlib, memcached, minecraft, mongodb,
    mysql, nginx, node.js, notion, numpy, nvidia tesla, oauth, opentelemetry, os x, outlook, pandas, photoshop,
    pinecone, playstation, postgres, postgresql, powerpoint, prometheus, pypi, pytest, python, pytorch, rabbitmq,
    redis, redis streams, redshift, ruby on rails, safari browser, scikit-learn, scipy, snowflake db, spark sql,
    splunk, sqlalchemy, sqlite, swift ui, sympy, tensorflow, terraform, typescript, ubuntu, unix, visual studio, vs
    code, wii, windows 10, windows 11, windows xp, wordpress, xbox, xbox 360, xbox one, zoom app, zookeeper, ps3, ps4,
    ps5, blackberry""".split(",")
)

# Words that a name may have in lower case inside it.
PARTICLES = frozenset("al bin da de del der di dos du el la le of the van von y and &".split())

# Single words that the recogniser takes for people, companies or places; found in WNUT 2017's training part and in
# tau_bench runs outside the labelled ones, or plain from general knowledge of transcripts and chats.
NEVER_NAMES = frozenset(
    """
    aww awww ayyy baby bc bday birthday biz boo boy bro bruh btw christmas cheap click congrats coz damn dear def
    dude easter error fellas ff finally followers friday fyi girl gonna goodnight gotta gud guys haha hahaha
    halloween happy hav hell hello hey hmm hopefully idk ikr imma info insert inserted irl jk keep lol lmao lmfao
    love luv mom monday morning naw nope nvm omg omfg oops passenger passengers please plz prayer pls rip rofl rt
    saturday smh sorry store sum sunday thanksgiving thanks thursday thx tmr tomorrow tonight tho thought tuesday
    tweet ugh ur vip wanna wednesday whoo wow wtf xd xo xoxo yay yea yeah yesterday yo yup applied baggage basic
    cabin class economy business insurance departure arrival price total available seats status flight flights order
    reservation payment confirm duration origin destination step note size suite band brand glass cotton waterproof
    material color colour ids indexes structured series kit display vacuum cleaner proposal artist""".split()
)

# Words in the names of companies and institutions.
ORGANISATION_WORDS = frozenset(
    """
    academy ag agency air airlines airways alliance association authority bank bank's bros brothers bureau capital
    church club co co. college commission committee company consulting corp corp. corporation council court
    department dept enterprises fc federation foundation fund gmbh group holdings hospital hotel inc inc. industries
    institute insurance labs league ltd ltd. llc llp logistics ministry motors museum network networks news
    organization organisation partners party plc pharma press records research robotics school senate services
    society software solutions studio studios supply systems tech technologies times trust union university ventures
    """.split()
)
